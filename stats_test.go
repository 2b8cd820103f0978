package scatter

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// Stats are the sum of what the Responses said.
func TestStatsAreTheSumOfResponses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(3, 4))
		var mu sync.Mutex
		probe := func(ctx context.Context, _ PeerID, _ *Request) (hitList, error) {
			mu.Lock()
			fate, d := r.IntN(20), time.Duration(r.IntN(50))*time.Millisecond
			mu.Unlock()
			select {
			case <-time.After(d):
			case <-ctx.Done():
			}
			switch fate {
			case 0:
				return nil, errBroke
			case 1:
				panic(errBoom)
			case 2:
				return nil, ErrPartial
			case 3:
				time.Sleep(time.Second)
			}
			return nil, nil
		}
		s := newTestSearcher(t, probe, circleCover(3, somePeers(20)...), SearcherOptions{
			Options:    Options{PeerDeadline: 100 * time.Millisecond, Limit: 5, MinCoverage: 0.9, Live: allBut("peer7")},
			HedgeDelay: 30 * time.Millisecond, HedgeShare: 0.5, Seed: 1,
		})
		var want Stats
		probes := map[PeerID]int64{}
		for range 300 {
			ctx, cancel := context.WithTimeout(t.Context(), 120*time.Millisecond)
			resp, err := s.Search(ctx, testRequest, nil)
			cancel()
			want.Queries++
			want.Errors += count(err != nil)
			want.Partial += count(resp.Partial)
			for _, p := range resp.Peers {
				if p.Status == NotAsked || p.Status == Dead {
					continue
				}
				want.Probes++
				probes[p.Peer]++
				want.Fallbacks += count(p.Role == Fallback)
				want.Hedges += count(p.Role == Hedge)
				want.HedgesWon += count(p.Role == Hedge && p.Status == Answered)
			}
		}
		got := s.Stats()
		require.Len(t, got.Peers, 20)
		for i, p := range got.Peers {
			require.Equal(t, PeerID(fmt.Sprint("peer", i)), p.Peer)
			require.Equal(t, probes[p.Peer], p.Probes)
			require.Zero(t, p.InFlight)
			if p.Peer == "peer7" {
				require.Equal(t, PeerStats{Peer: "peer7"}, p)
				continue
			}
			require.True(t, 0 < p.P50 && p.P50 <= p.P95 && p.P95 <= p.P99 && p.P99 < 130*time.Millisecond, "%+v", p)
			require.NotZero(t, p.Failures)
		}
		for _, n := range []int64{want.Errors, want.Partial, want.Fallbacks, want.Hedges, want.HedgesWon} {
			require.NotZero(t, n)
		}
		require.Positive(t, got.FallbackPurse)
		want.FallbackPurse, want.HedgePurse, want.Peers = got.FallbackPurse, got.HedgePurse, got.Peers
		require.Equal(t, want, got)
		got.Peers[0].Peer = "z"
		require.Equal(t, PeerID("peer0"), s.Stats().Peers[0].Peer, "the caller owns them")
	})
}

// Stats tells what is in flight while it is.
func TestStatsInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTestSearcher(t, behave{"a": after(time.Second), "b": after(2 * time.Second)}.probe, circleCover(1, "a", "b"), SearcherOptions{})
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() { _, _ = s.Search(t.Context(), testRequest, nil) })
		}
		inFlight := func() [2]int {
			synctest.Wait()
			peers := s.Stats().Peers
			return [2]int{peers[0].InFlight, peers[1].InFlight}
		}
		require.Equal(t, [2]int{3, 3}, inFlight())
		time.Sleep(time.Second)
		require.Equal(t, [2]int{0, 3}, inFlight())
		s.SetCover(circleCover(1, "b", "c"))
		require.Equal(t, [2]int{3, 0}, inFlight())
		wg.Wait()
		require.Equal(t, [2]int{0, 0}, inFlight())
	})
}

// Rule 29: what is known of a peer outlives a change of the Cover, unless the peer leaves.
func TestStatsOutliveSetCover(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := behave{"a": after(time.Second), "b": after(2 * time.Second)}
		s := newTestSearcher(t, b.probe, circleCover(1, "a", "b"), SearcherOptions{})
		_, err := s.Search(t.Context(), testRequest, nil)
		require.NoError(t, err)
		medians := func() (m []time.Duration) {
			for _, p := range s.Stats().Peers {
				m = append(m, p.P50.Round(500*time.Millisecond))
			}
			return m
		}
		require.Equal(t, []time.Duration{time.Second, 2 * time.Second}, medians())
		s.SetCover(circleCover(1, "c", "a"))
		require.Equal(t, []time.Duration{0, time.Second}, medians())
		require.Equal(t, int64(1), s.Stats().Peers[1].Probes)
		s.SetCover(circleCover(1, "a", "b"))
		require.Equal(t, []time.Duration{time.Second, 0}, medians())
		s.SetCover(nil)
		require.Empty(t, medians())
		s.SetCover(new(Cover))
		require.Empty(t, medians())
	})
}
