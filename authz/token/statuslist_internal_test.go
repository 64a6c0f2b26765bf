package token

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"
)

// TestStatusList_ExampleOfTheDraft reads the example of draft-ietf-oauth-status-list, section 4.1.
func TestStatusList_ExampleOfTheDraft(t *testing.T) {
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
		t.Error("an index after the end has a status")
	}
	// Two bits a token: 0b11_10_01_00 holds 0, 1, 2 and 3.
	two := &statusList{bits: 2, values: []byte{0xe4}}
	for i := range int64(4) {
		if got, _ := two.at(i); got != byte(i) {
			t.Errorf("two bits, index %d: %d", i, got)
		}
	}
}

// TestStatusLists_Full uses an issuer that names one list after the other: those without a good list make room, others do not.
func TestStatusLists_Full(t *testing.T) {
	now := time.Unix(1700000000, 0)
	lists, is := newStatusLists(nil, Options{}), &issuer{}
	ref := func(n int) *statusRef { return &statusRef{issuer: is, uri: fmt.Sprint(n)} }
	for n := range maxStatusLists {
		if lists.watched(ref(n), now) == nil {
			t.Fatalf("no room for list %d", n)
		}
	}
	if lists.watched(ref(-1), now) == nil || len(lists.lists[is]) != 1 {
		t.Errorf("%d lists are kept that could not be fetched", len(lists.lists[is])-1)
	}
	for n := range maxStatusLists - 1 {
		lists.watched(ref(n), now).list.Store(&statusList{until: now.Add(time.Minute)})
	}
	lists.watched(ref(-1), now).list.Store(&statusList{until: now.Add(time.Minute)})
	if lists.watched(ref(-2), now) != nil || lists.watched(ref(0), now) == nil {
		t.Error("a list is added beyond the limit, or a good one was dropped for it")
	}
	if lists.watched(ref(-2), now.Add(time.Hour)) == nil {
		t.Error("expired lists make no room")
	}
}

// FuzzStatusList: no list makes the reader panic, or grow without bound.
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
