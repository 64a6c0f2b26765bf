package token

import (
	"encoding/json"
	"testing"
	"time"
)

// TestStatusListVector reads the example of the draft (draft-ietf-oauth-status-list, section 4.1).
func TestStatusListVector(t *testing.T) {
	claims := map[string]any{
		"iat": json.Number("1700000000"), "status_list": map[string]any{"bits": json.Number("1"), "lst": "eNrbuRgAAhcBXQ"},
	}
	l, err := readStatusList(claims, time.Unix(1700000000, 0), 0)
	if err != nil {
		t.Fatal(err)
	}
	want := map[int64]bool{0: true, 3: true, 4: true, 5: true, 7: true, 8: true, 9: true, 13: true, 15: true}
	for i := range int64(16) {
		if got, ok := l.at(i); !ok || (got == 1) != want[i] {
			t.Errorf("index %d: %d", i, got)
		}
	}
	if _, ok := l.at(16); ok {
		t.Error("there is a token behind the end")
	}
	// Two bits a token: 0b11_10_01_00 holds 0, 1, 2 and 3.
	two := &statusList{bits: 2, values: []byte{0xe4}}
	for i := range int64(4) {
		if got, _ := two.at(i); got != byte(i) {
			t.Errorf("two bits, index %d: %d", i, got)
		}
	}
}

// FuzzStatusList holds that no list makes it panic or grow without bound.
func FuzzStatusList(f *testing.F) {
	f.Add("eNrbuRgAAhcBXQ", int64(3), 1)
	f.Fuzz(func(t *testing.T, lst string, index int64, bits int) {
		if bits != 1 && bits != 2 && bits != 4 && bits != 8 {
			return
		}
		row, err := inflate(lst)
		if err != nil {
			return
		}
		if len(row) > maxInflated {
			t.Fatalf("%d bytes", len(row))
		}
		if index >= 0 {
			(&statusList{bits: bits, values: row}).at(index)
		}
	})
}
