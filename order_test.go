package scatter

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

// An Order goes through JSON and back as its name, as a value and as a key.
func TestOrderText(t *testing.T) {
	for _, order := range allOrders {
		text, err := json.Marshal(map[Order]Order{order: order})
		require.NoError(t, err)
		require.Equal(t, fmt.Sprintf("{%q:%q}", order, order), string(text))

		var got map[Order]Order
		require.NoError(t, json.Unmarshal(text, &got))
		require.Equal(t, map[Order]Order{order: order}, got)
	}
}

func TestOrderTextErrors(t *testing.T) {
	_, err := Order(3).MarshalText()
	require.EqualError(t, err, "scatter: Order is 3, which is unknown")

	order := IDAscending
	for _, text := range []string{"", "scoreascending", "scatter.Order(3)", "Sideways"} {
		require.EqualError(t, order.UnmarshalText([]byte(text)), fmt.Sprintf("scatter: Order is %q, which is unknown", text))
		require.Equal(t, IDAscending, order)
	}
	require.Error(t, json.Unmarshal([]byte("1"), &order))
}

// A struct that embeds a Hit is encoded by its own fields: it inherits no method of Hit for that.
func TestHitJSON(t *testing.T) {
	type titled struct {
		Hit[string]
		Title string
	}
	want := titled{Hit[string]{"a", 0.5}, "title"}
	text, err := json.Marshal(want)
	require.NoError(t, err)
	require.JSONEq(t, `{"id": "a", "score": 0.5, "Title": "title"}`, string(text))

	var got titled
	require.NoError(t, json.Unmarshal(text, &got))
	require.Equal(t, want, got)
}
