package server

import "testing"

func TestGCPercent(t *testing.T) {
	for live, want := range map[uint64]int{0: 1000, 4 << 20: 1000, 32 << 20: 400, 64 << 20: 200, 128 << 20: 100, 4 << 30: 100} {
		if got := gcPercent(live); got != want {
			t.Errorf("with %d MB in use: %d %%, want %d %%", live>>20, got, want)
		}
	}
}
