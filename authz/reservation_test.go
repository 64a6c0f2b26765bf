package authz_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

type putBacks []string

func (p *putBacks) PutBack(id string, units int64) { *p = append(*p, fmt.Sprint(id, " ", units)) }

// TestReservation_Cancel gives back what was taken since Begin, each part under an id of its own, and once.
func TestReservation_Cancel(t *testing.T) {
	var r authz.Reservation
	for parts := range 5 {
		var got putBacks
		r.Begin("node", 35)
		r.Add(&got, 99)
		r.Begin("node", 36)
		want := putBacks{}
		for i := range parts {
			r.Add(&got, int64(i))
			want = append(want, fmt.Sprintf("node.10.%d %d", i, i))
		}
		if r.Holds() != (parts > 0) {
			t.Errorf("with %d parts: %v", parts, r.Holds())
		}
		r.Cancel()
		if r.Cancel(); !slices.Equal(got, want) || r.Holds() {
			t.Errorf("%d parts: %q, want %q", parts, got, want)
		}
	}
}
