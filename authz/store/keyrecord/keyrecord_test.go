package keyrecord_test

import (
	"encoding/json"
	"math"
	"reflect"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/apikey"
	"github.com/tollkeeper-authz/tollkeeper/authz/store/keyrecord"
)

// asJSON is a value as it is read back from JSON: the records must hold the same.
func asJSON[T any](t *rapid.T, v T) (out T, text string) {
	raw, err := json.Marshal(v)
	if err == nil {
		err = json.Unmarshal(raw, &out)
	}
	if err == nil {
		raw, err = json.Marshal(out)
	}
	if err != nil {
		t.Fatal(err)
	}
	return out, string(raw)
}

func times(t *rapid.T, name string) time.Time {
	zone := time.UTC
	if minutes := rapid.IntRange(-23*60, 23*60).Draw(t, name+" zone"); minutes%3 > 0 {
		zone = time.FixedZone("somewhere", minutes*60)
	}
	switch rapid.IntRange(0, 4).Draw(t, name+" kind") {
	case 0:
		return time.Time{}
	case 1:
		return time.Unix(rapid.Int64Range(0, 1<<32).Draw(t, name), 0).In(zone)
	case 2: // the first and the last that JSON can hold
		return time.Date(rapid.SampledFrom([]int{1, 9998}).Draw(t, name), 12, 30, 23, 59, 59, 999_999_999, zone)
	}
	return time.Unix(rapid.Int64Range(-1<<33, 1<<33).Draw(t, name), rapid.Int64Range(0, 1e9-1).Draw(t, name+" ns")).In(zone)
}

func values(t *rapid.T, depth int) any {
	kinds := 7
	if depth > 3 {
		kinds = 5
	}
	switch rapid.IntRange(0, kinds-1).Draw(t, "kind") {
	case 0:
		return nil
	case 1:
		return rapid.Bool().Draw(t, "bool")
	case 2:
		return rapid.SampledFrom([]float64{0, math.Copysign(0, -1), 1, -1, 0.1, 5e-324, math.MaxFloat64, 1 << 53, 1e21}).Draw(t, "number")
	case 3:
		return rapid.Int64().Draw(t, "whole") // JSON reads it as a float64
	case 4:
		return texts(t, "text")
	case 5:
		list := []any{}
		for range rapid.IntRange(0, 3).Draw(t, "items") {
			list = append(list, values(t, depth+1))
		}
		return list
	}
	return objects(t, depth+1)
}

func objects(t *rapid.T, depth int) map[string]any {
	m := make(map[string]any)
	for range rapid.IntRange(0, 3).Draw(t, "fields") {
		m[texts(t, "name")] = values(t, depth)
	}
	return m
}

func texts(t *rapid.T, name string) string {
	return rapid.OneOf(rapid.SampledFrom([]string{"", "a", "\x00", "ä\u2028<&>\"\\", "bad \xff"}), rapid.String()).Draw(t, name)
}

// TestKey_SameAsJSON writes random keys as a record and as JSON, and reads the same from both.
func TestKey_SameAsJSON(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		k, text := asJSON(t, apikey.Key{
			ID: texts(t, "id"), Name: texts(t, "name"), Account: texts(t, "account"), Plan: texts(t, "plan"), Environment: texts(t, "environment"),
			Scopes: rapid.SliceOfN(rapid.SampledFrom([]string{"", "read", "write"}), 0, 3).Draw(t, "scopes"), NotBefore: times(t, "not before"),
			ExpiresAt: times(t, "expires"), Disabled: rapid.Bool().Draw(t, "disabled"), Meta: objects(t, 0), Lineage: texts(t, "lineage"),
			Successor: texts(t, "successor"), OverlapEnds: times(t, "overlap"), CreatedAt: times(t, "created"), UpdatedAt: times(t, "updated"),
			Version: rapid.Uint64().Draw(t, "version"), Digest: apikey.Hasher{}.Text(texts(t, "digest")),
		})
		if rapid.Bool().Draw(t, "new") {
			k.Lineage, k.UpdatedAt = k.ID, k.CreatedAt
			k, text = asJSON(t, k)
		}
		record, err := keyrecord.Open(k.Digest[:], keyrecord.AppendKey(nil, &k))
		if err != nil {
			t.Fatal(err)
		}
		var got apikey.Key
		if err := keyrecord.Key(&got, k.Digest, string(record)); err != nil {
			t.Fatal(err)
		}
		if _, again := asJSON(t, got); again != text {
			t.Fatalf("read\n%s, want\n%s", again, text)
		}
		if !reflect.DeepEqual(got.Meta, k.Meta) || !reflect.DeepEqual(got.Scopes, k.Scopes) {
			t.Fatalf("read %#v and %#v, want %#v and %#v", got.Meta, got.Scopes, k.Meta, k.Scopes)
		}
		use, ok, err := keyrecord.PlanUse(record)
		if want := k.PlanUse(); err != nil || ok != (k.Plan != "") || ok && (use.Plan != want.Plan || use.Account != want.Account || use.Key != want.Key ||
			!use.CreatedAt.Equal(want.CreatedAt) || !use.Ends.Equal(want.Ends)) {
			t.Fatalf("its plan is used by %+v, %v, %v, want %+v", use, ok, err, want)
		}
	})
}

// TestAccount_SameAsJSON is TestKey_SameAsJSON for accounts.
func TestAccount_SameAsJSON(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, text := asJSON(t, apikey.Account{
			ID: texts(t, "id"), Name: texts(t, "name"), Plan: texts(t, "plan"), Meta: objects(t, 0), CreatedAt: times(t, "created"),
			Status:    rapid.SampledFrom([]authz.AccountStatus{"", authz.AccountActive, authz.AccountOverdue, "odd"}).Draw(t, "status"),
			UpdatedAt: times(t, "updated"), Version: rapid.Uint64().Draw(t, "version"),
		})
		record, err := keyrecord.Open([]byte(a.ID), keyrecord.AppendAccount(nil, &a))
		if err != nil {
			t.Fatal(err)
		}
		var got apikey.Account
		if err := keyrecord.Account(&got, a.ID, string(record)); err != nil {
			t.Fatal(err)
		}
		if _, again := asJSON(t, got); again != text || !reflect.DeepEqual(got.Meta, a.Meta) {
			t.Fatalf("read\n%s, want\n%s", again, text)
		}
	})
}

func sample() apikey.Key {
	at := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	return apikey.Key{
		ID: "key_5YzPq0123456789abcde", Name: "a name", Account: "account-123456", Plan: "pro", Environment: "live", Scopes: []string{"read", "write"},
		ExpiresAt: at.AddDate(5, 0, 0), Meta: map[string]any{"team": "blue"}, Lineage: "key_5YzPq0123456789abcde", CreatedAt: at, UpdatedAt: at, Version: 1,
		Digest: apikey.Hasher{}.Text("sample"),
	}
}

// TestOpen_Damage changes a record bit by bit, cuts it short, and takes it for that of another key.
func TestOpen_Damage(t *testing.T) {
	k := sample()
	sealed := keyrecord.AppendKey(nil, &k)
	refused := func(what string, key, record []byte) {
		t.Helper()
		if _, err := keyrecord.Open(key, record); err == nil || authz.KindOf(err) != authz.KindUnavailable {
			t.Errorf("%s: %v", what, err)
		}
	}
	for bit := range len(sealed) * 8 {
		changed := append([]byte(nil), sealed...)
		changed[bit/8] ^= 1 << (bit % 8)
		refused("a changed bit", k.Digest[:], changed)
	}
	for size := range sealed {
		refused("a part", k.Digest[:], sealed[:size])
	}
	other := apikey.Hasher{}.Text("other")
	refused("another key", other[:], sealed)
	refused("an old record", k.Digest[:], []byte(`{"id":"key_1"}`))
}

// FuzzKey reads what is not a record, as after a mistake in this package: nothing may panic or take much memory.
func FuzzKey(f *testing.F) {
	k := sample()
	k.Meta = map[string]any{"a": []any{nil, true, 1.5, map[string]any{"b": "c"}}}
	f.Add(keyrecord.AppendKey(nil, &k))
	f.Add(keyrecord.AppendAccount(nil, &apikey.Account{ID: "acme", Meta: k.Meta}))
	f.Add([]byte{1, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, record []byte) {
		for cut := range len(record) + 1 {
			_ = keyrecord.Key(new(apikey.Key), k.Digest, string(record[:cut]))
			_ = keyrecord.Account(new(apikey.Account), "acme", string(record[:cut]))
			_, _, _ = keyrecord.PlanUse(record[:cut])
		}
	})
}

// BenchmarkKey reads a key as a record, and as JSON.
func BenchmarkKey(b *testing.B) {
	k := sample()
	sealed := keyrecord.AppendKey(nil, &k)
	text, err := json.Marshal(k)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("device=on", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			record, err := keyrecord.Open(k.Digest[:], sealed)
			if err == nil {
				err = keyrecord.Key(new(apikey.Key), k.Digest, string(record))
			}
			if err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(len(sealed)), "B/record")
	})
	b.Run("device=off", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if err := json.Unmarshal(text, new(apikey.Key)); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(len(text)), "B/record")
	})
	b.Run("plan use", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, _, err := keyrecord.PlanUse(sealed[:len(sealed)-4]); err != nil {
				b.Fatal(err)
			}
		}
	})
}
