package revocation_test

import (
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/credential"
	"github.com/tollkeeper-authz/tollkeeper/authz/revocation"
)

// kinds are the kinds of record.
var kinds = []revocation.Kind{
	revocation.KindKey, revocation.KindAccount, revocation.KindToken, revocation.KindJTI, revocation.KindSession,
	revocation.KindSubject, revocation.KindClient, revocation.KindSigningKey, revocation.KindSuspension,
}

func valid(kind revocation.Kind) revocation.Record {
	r := revocation.Record{Kind: kind, Issuer: issuer, Value: "abc", At: noon()}
	switch kind {
	case revocation.KindKey, revocation.KindAccount:
		r.Issuer = ""
	case revocation.KindToken:
		r.Issuer, r.Value = "", credential.TokenDigest("abc")
	}
	switch kind {
	case revocation.KindAccount, revocation.KindSubject, revocation.KindClient:
		r.Before = noon()
	}
	return r
}

func TestRecord_Check(t *testing.T) {
	for _, kind := range kinds {
		if err := revocation.CheckRecord(valid(kind)); err != nil {
			t.Errorf("%s: %v", kind, err)
		}
	}
	for name, c := range map[string]struct {
		kind  revocation.Kind
		spoil func(r *revocation.Record)
		words string
	}{
		"nothing":                    {"", func(r *revocation.Record) { *r = revocation.Record{} }, "needs the id"},
		"no id":                      {revocation.KindKey, func(r *revocation.Record) { r.Value = "" }, "needs the id"},
		"another kind":               {"planet", func(*revocation.Record) {}, `"planet"`},
		"no kind":                    {"", func(*revocation.Record) {}, `""`},
		"account for good and all":   {revocation.KindAccount, func(r *revocation.Record) { r.Before = time.Time{} }, "an account needs the instant"},
		"subject for good and all":   {revocation.KindSubject, func(r *revocation.Record) { r.Before = time.Time{} }, "a subject needs the instant"},
		"client for good and all":    {revocation.KindClient, func(r *revocation.Record) { r.Before = time.Time{} }, "a client needs the instant"},
		"jti without issuer":         {revocation.KindJTI, func(r *revocation.Record) { r.Issuer = "" }, "a jti needs the issuer"},
		"session without issuer":     {revocation.KindSession, func(r *revocation.Record) { r.Issuer = "" }, "a session needs the issuer"},
		"subject without issuer":     {revocation.KindSubject, func(r *revocation.Record) { r.Issuer = "" }, "a subject needs the issuer"},
		"client without issuer":      {revocation.KindClient, func(r *revocation.Record) { r.Issuer = "" }, "a client needs the issuer"},
		"signing key without issuer": {revocation.KindSigningKey, func(r *revocation.Record) { r.Issuer = "" }, "a signing key needs the issuer"},
		"suspension without issuer":  {revocation.KindSuspension, func(r *revocation.Record) { r.Issuer = "" }, "needs the issuer"},
		"key with issuer":            {revocation.KindKey, func(r *revocation.Record) { r.Issuer = issuer }, "leave it out"},
		"token with issuer":          {revocation.KindToken, func(r *revocation.Record) { r.Issuer = issuer }, "leave it out"},
		"token by its text":          {revocation.KindToken, func(r *revocation.Record) { r.Value = "eyJhbGciOiJIUzI1NiJ9.e30.c2ln" }, "by its digest"},
		"digest with a line end":     {revocation.KindToken, func(r *revocation.Record) { r.Value += "\n" }, "by its digest"},
		"digest with loose bits":     {revocation.KindToken, func(r *revocation.Record) { r.Value = strings.Repeat("_", 43) }, "by its digest"},
		"lifted key":                 {revocation.KindKey, func(r *revocation.Record) { r.Lifted = true }, "only a suspension can be lifted"},
		"lifted subject":             {revocation.KindSubject, func(r *revocation.Record) { r.Lifted = true }, "only a suspension can be lifted"},
		"suspension at no time":      {revocation.KindSuspension, func(r *revocation.Record) { r.At = time.Time{} }, "needs the instant"},
		"suspension of old tokens":   {revocation.KindSuspension, func(r *revocation.Record) { r.Before = noon() }, "all tokens"},
		"long value":                 {revocation.KindJTI, func(r *revocation.Record) { r.Value = strings.Repeat("x", 1025) }, "longer than 1024"},
		"long issuer":                {revocation.KindJTI, func(r *revocation.Record) { r.Issuer = strings.Repeat("x", 1025) }, "longer than 1024"},
		"value that is no text":      {revocation.KindJTI, func(r *revocation.Record) { r.Value = "a\xff" }, "UTF-8"},
		"issuer that is no text":     {revocation.KindJTI, func(r *revocation.Record) { r.Issuer = "a\xff" }, "UTF-8"},
	} {
		r := valid(c.kind)
		c.spoil(&r)
		err := revocation.CheckRecord(r)
		if err == nil || authz.KindOf(err) != authz.KindInvalid || !strings.Contains(err.Error(), c.words) {
			t.Errorf("%s: %v", name, err)
		}
		if err != nil && strings.Contains(err.Error(), "eyJ") {
			t.Errorf("%s: the error has a secret in it: %v", name, err)
		}
	}
	long := valid(revocation.KindJTI)
	long.Issuer, long.Value = strings.Repeat("x", 1024), strings.Repeat("ä", 512)
	if err := revocation.CheckRecord(long); err != nil {
		t.Error(err)
	}
}

// instants are some hours from noon on, or none.
var instants = rapid.Custom(func(t *rapid.T) time.Time {
	if n := rapid.IntRange(0, 4).Draw(t, "hours"); n > 0 {
		return noon().Add(time.Duration(n) * time.Hour)
	}
	return time.Time{}
})

func reaches(bound, t time.Time) bool { return bound.IsZero() || !t.After(bound) }

// TestRecord_MergeNeverWeakens merges random records and checks that the result cuts off everything that either did.
func TestRecord_MergeNeverWeakens(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		kind := rapid.SampledFrom(kinds[:len(kinds)-1]).Draw(t, "kind")
		record := func(name string) revocation.Record {
			r := valid(kind)
			r.Before, r.ExpiresAt, r.Cause = instants.Draw(t, name), instants.Draw(t, name), name
			return r
		}
		old, add := record("old"), record("add")
		old.Revision = 7
		got, changed := revocation.Merge(old, add)
		for hour := range 6 {
			at := noon().Add(time.Duration(hour) * time.Hour)
			if reaches(got.Before, at) != (reaches(old.Before, at) || reaches(add.Before, at)) {
				t.Fatalf("%+v and %+v make %+v, which says something else of %v", old, add, got, at)
			}
			if reaches(got.ExpiresAt, at) != (reaches(old.ExpiresAt, at) || reaches(add.ExpiresAt, at)) {
				t.Fatalf("%+v and %+v make %+v, which lives until something else", old, add, got)
			}
		}
		if !changed && got != old || changed == (got.Before.Equal(old.Before) && got.ExpiresAt.Equal(old.ExpiresAt)) {
			t.Fatalf("%+v and %+v make %+v, changed: %v", old, add, got, changed)
		}
		if again, changed := revocation.Merge(got, add); changed || again != got {
			t.Fatalf("merged again: %+v, was %+v", again, got)
		}
		if got.Kind != old.Kind || got.Issuer != old.Issuer || got.Value != old.Value || got.Lifted {
			t.Fatalf("%+v became %+v", old, got)
		}
	})
}

// TestRecord_MergeKeepsTheLatestSuspension merges random suspensions in two orders: both leave the one that happened last.
func TestRecord_MergeKeepsTheLatestSuspension(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		records := make([]revocation.Record, rapid.IntRange(2, 6).Draw(t, "records"))
		var last time.Time
		cutOff := false // one of those that happened last suspends
		for i := range records {
			r := valid(revocation.KindSuspension)
			r.At = noon().Add(time.Duration(rapid.IntRange(0, 3).Draw(t, "at")) * time.Hour)
			r.Lifted, r.ExpiresAt = rapid.Bool().Draw(t, "lifted"), instants.Draw(t, "expires")
			records[i] = r
			switch {
			case r.At.After(last):
				last, cutOff = r.At, !r.Lifted
			case r.At.Equal(last):
				cutOff = cutOff || !r.Lifted
			}
		}
		got := mergeAll(t, records)
		if !got.At.Equal(last) || got.Lifted == cutOff {
			t.Fatalf("%+v make %+v", records, got)
		}
		if other := mergeAll(t, rapid.Permutation(records).Draw(t, "order")); other != got {
			t.Fatalf("%+v make %+v, and in another order %+v", records, got, other)
		}
	})
}

func mergeAll(t *rapid.T, records []revocation.Record) revocation.Record {
	out := records[0]
	for _, add := range records[1:] {
		merged, changed := revocation.Merge(out, add)
		if changed == (merged == out) || merged != out && merged != add {
			t.Fatalf("%+v and %+v make %+v, changed: %v", out, add, merged, changed)
		}
		if again, changed := revocation.Merge(merged, add); changed || again != merged {
			t.Fatalf("merged again: %+v, was %+v", again, merged)
		}
		out = merged
	}
	return out
}
