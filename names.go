package scatter

import "fmt"

// enumString is the String method of an enumeration whose value i has the name names[i].
func enumString[T ~uint8](v T, names []string) string {
	if int(v) < len(names) {
		return names[v]
	}
	return fmt.Sprintf("%T(%d)", v, uint8(v))
}

// enumText is the MarshalText method of such an enumeration. A value without a name is an error,
// which calls the enumeration kind.
func enumText[T ~uint8](v T, kind string, names []string) ([]byte, error) {
	if int(v) < len(names) {
		return []byte(names[v]), nil
	}
	return nil, fmt.Errorf("scatter: %s is %d, which is unknown", kind, uint8(v))
}

// parseEnum is the UnmarshalText method of such an enumeration. If text is none of the names, it
// returns an error, which calls the enumeration kind, and leaves v unchanged.
func parseEnum[T ~uint8](v *T, kind string, text []byte, names []string) error {
	for i, name := range names {
		if string(text) == name {
			*v = T(i)
			return nil
		}
	}
	return fmt.Errorf("scatter: %s is %.60q, which is unknown", kind, text)
}
