package authz

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"testing"
)

func TestDecision_OnlyAllowAllows(t *testing.T) {
	var zero Decision
	if zero.Allowed() {
		t.Error("the zero decision allows")
	}
	for status := -1; status < 700; status++ {
		d := Deny(Answer{Status: status})
		if d.Allowed() || d.HTTPStatus() < 200 || d.HTTPStatus() > 599 || d.DeniedFor() == "" {
			t.Fatalf("Deny with status %d: %+v", status, d)
		}
	}
	if d := Allow(Answer{Status: 402, Reason: ReasonKeyExpired, Body: "x"}); !d.Allowed() || d.HTTPStatus() != 0 || d.DeniedFor() != "" || d.Body != "" {
		t.Errorf("Allow carries parts of a denial: %+v", d)
	}
}

func TestKindOf_OutermostOrUnavailable(t *testing.T) {
	if got := KindOf(Errorf(KindNotFound, "no key %q: %w", "k", fs.ErrNotExist)); got != KindNotFound {
		t.Errorf("kind %q", got)
	}
	if err := Errorf(KindNotFound, "x: %w", fs.ErrNotExist); !errors.Is(err, fs.ErrNotExist) {
		t.Error("the cause is lost")
	}
	if got := KindOf(nil); got != "" {
		t.Errorf("no error has the kind %q", got)
	}
	if got := KindOf(errors.New("x")); got != KindUnavailable {
		t.Errorf("an error without a kind is %q", got)
	}
}

func TestValidReason_Codes(t *testing.T) {
	for s, want := range map[string]bool{"key_expired": true, "a1_": true, "": false, "ab": false, "Key": false, "1ab": false, "a b": false, "a\nb": false, "a-b-c": false} {
		if ValidReason(s) != want {
			t.Errorf("ValidReason(%q) = %v", s, !want)
		}
	}
}

// jar counts the units that are put back.
type jar map[string]int64

func (j jar) PutBack(id string, units int64) { j[id] += units }

func TestReservation_CancelGivesBackOnce(t *testing.T) {
	var r Reservation
	if r.Holds() || r.ID() != "" {
		t.Errorf("the zero reservation holds something, or has the id %q", r.ID())
	}
	r.Cancel()
	for parts := range 6 {
		j, want := jar{}, jar{}
		node := "node"
		r.Begin(node, 36)
		for i := range parts {
			r.Add(j, int64(i+1))
			want[fmt.Sprintf("node.10.%d", i)] = int64(i + 1)
		}
		moved := r
		if moved.Holds() != (parts > 0) {
			t.Errorf("%d parts: holds %v", parts, moved.Holds())
		}
		moved.Cancel()
		moved.Cancel()
		if !maps.Equal(j, want) || moved.Holds() {
			t.Errorf("%d parts: %v were put back, want %v", parts, j, want)
		}
	}
}
