package revocation_test

import (
	"context"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/credential"
	"github.com/tollkeeper-authz/tollkeeper/authz/revocation"
	"github.com/tollkeeper-authz/tollkeeper/authz/store/memory"
)

func revoke(tb testing.TB, s *revocation.Set, r revocation.Record) revocation.Record {
	tb.Helper()
	stored, err := s.Revoke(tb.Context(), r)
	if err != nil {
		tb.Fatalf("%+v: %v", r, err)
	}
	return stored
}

// TestSet_EachKindCutsOffItsTokens revokes one thing at a time: it cuts off the token that has it, and no other.
func TestSet_EachKindCutsOffItsTokens(t *testing.T) {
	token := fullToken()
	for kind, c := range map[revocation.Kind]struct {
		value  string
		unlike func(t *authz.TokenFact)
	}{
		revocation.KindToken:      {token.Digest, func(t *authz.TokenFact) { t.Digest = credential.TokenDigest("another") }},
		revocation.KindJTI:        {token.ID, func(t *authz.TokenFact) { t.ID = "another" }},
		revocation.KindSession:    {token.Session, func(t *authz.TokenFact) { t.Session = "another" }},
		revocation.KindSubject:    {token.Subject, func(t *authz.TokenFact) { t.Subject = "another" }},
		revocation.KindSuspension: {token.Subject, func(t *authz.TokenFact) { t.Subject = "another" }},
		revocation.KindClient:     {token.Client, func(t *authz.TokenFact) { t.Client = "another" }},
		revocation.KindSigningKey: {token.SigningKey, func(t *authz.TokenFact) { t.SigningKey = "another" }},
		revocation.KindAccount:    {token.Account, func(t *authz.TokenFact) { t.Account = "another" }},
	} {
		s := revocation.NewSet(memory.NewRevocations(), time.Minute, noon)
		if s.Token(&token) {
			t.Fatal("an empty set revokes")
		}
		r := valid(kind)
		r.Value = c.value
		revoke(t, s, r)
		other, nameless, foreign := token, token, token
		c.unlike(&other)
		nameless.ID, nameless.Digest, nameless.Session, nameless.Subject, nameless.Client, nameless.SigningKey, nameless.Account = "", "", "", "", "", "", ""
		foreign.Issuer = "https://another.example"
		if !s.Token(&token) || s.Token(&other) || s.Token(&nameless) || s.Token(&authz.TokenFact{}) {
			t.Errorf("%s: revoked %v, another %v, one of which nothing is known %v", kind, s.Token(&token), s.Token(&other), s.Token(&nameless))
		}
		if got, want := s.Token(&foreign), r.Issuer == ""; got != want {
			t.Errorf("%s: of another issuer: %v", kind, got)
		}
		newer, timeless := token, token
		newer.IssuedAt, timeless.IssuedAt = noon().Add(1), time.Time{}
		if got, want := s.Token(&newer), r.Before.IsZero(); got != want {
			t.Errorf("%s: issued later: %v", kind, got)
		}
		if !s.Token(&timeless) {
			t.Errorf("%s: what was issued at an unknown time is trusted", kind)
		}
	}
}

func TestSet_SuspensionIsLifted(t *testing.T) {
	s := revocation.NewSet(memory.NewRevocations(), time.Minute, noon)
	token := fullToken()
	at := func(d time.Duration, lifted bool) revocation.Record {
		return revocation.Record{Kind: revocation.KindSuspension, Issuer: issuer, Value: token.Subject, At: noon().Add(d), Lifted: lifted}
	}
	for i, step := range []struct {
		record revocation.Record
		want   bool
	}{
		{at(0, true), false}, // it was never suspended
		{at(0, false), true},
		{at(0, true), true}, // at the same instant, the suspension wins
		{at(2, true), false},
		{at(1, false), false}, // arrives late
		{at(3, false), true},
		{at(2, true), true},
		{at(4, true), false},
	} {
		revoke(t, s, step.record)
		if got := s.Token(&token); got != step.want {
			t.Errorf("after record %d: %v", i, got)
		}
	}
	subject := valid(revocation.KindSubject)
	subject.Value = token.Subject
	revoke(t, s, subject)
	if !s.Token(&token) {
		t.Error("a suspension that is lifted brings back what was revoked")
	}
}

// TestSet_InstantsFarAway has instants that nanoseconds cannot express.
func TestSet_InstantsFarAway(t *testing.T) {
	year := func(y int) time.Time { return time.Date(y, 1, 1, 0, 0, 0, 0, time.UTC) }
	for _, c := range []struct {
		before, issued time.Time
		want           bool
	}{
		{year(1000), noon(), false}, {year(1000), time.Time{}, true}, {year(3000), noon(), true}, {year(3000), year(3000), true},
		{year(9999), year(2262), true}, {year(2100), year(3000), false}, {year(1677), year(1678), false}, {noon(), time.Time{}, true},
	} {
		s := revocation.NewSet(memory.NewRevocations(), time.Minute, noon)
		revoke(t, s, accountRecord("acme", c.before))
		if got := s.Account("acme", c.issued); got != c.want {
			t.Errorf("before %v, issued %v: %v", c.before, c.issued, got)
		}
	}
}

// fewTokens are so few that random records meet them.
var fewTokens = rapid.Custom(func(t *rapid.T) authz.TokenFact {
	name := func(what string) string { return rapid.SampledFrom([]string{"", "a", "b"}).Draw(t, what) }
	f := authz.TokenFact{
		Issuer: rapid.SampledFrom([]string{"i", "j"}).Draw(t, "issuer"), ID: name("jti"), Session: name("sid"), Subject: name("sub"),
		Client: name("client"), SigningKey: name("kid"), Account: name("account"), IssuedAt: instants.Draw(t, "issued"),
	}
	if text := name("text"); text != "" {
		f.Digest = credential.TokenDigest(text)
	}
	return f
})

var fewRecords = rapid.Custom(func(t *rapid.T) revocation.Record {
	r := valid(rapid.SampledFrom(kinds).Draw(t, "kind"))
	r.Value = rapid.SampledFrom([]string{"a", "b"}).Draw(t, "value")
	if r.Kind == revocation.KindToken {
		r.Value = credential.TokenDigest(r.Value)
	}
	if r.Issuer != "" {
		r.Issuer = rapid.SampledFrom([]string{"i", "j"}).Draw(t, "issuer")
	}
	if !r.Before.IsZero() {
		r.Before = noon().Add(time.Duration(rapid.IntRange(0, 4).Draw(t, "before")) * time.Hour)
	}
	if r.Kind == revocation.KindSuspension {
		r.At = noon().Add(time.Duration(rapid.IntRange(0, 4).Draw(t, "at")) * time.Hour)
		r.Lifted = rapid.Bool().Draw(t, "lifted")
	}
	return r
})

// matches is the meaning of one record.
func matches(r revocation.Record, t authz.TokenFact) bool {
	value := map[revocation.Kind]string{
		revocation.KindToken: t.Digest, revocation.KindJTI: t.ID, revocation.KindSession: t.Session, revocation.KindSubject: t.Subject,
		revocation.KindSuspension: t.Subject, revocation.KindClient: t.Client, revocation.KindSigningKey: t.SigningKey,
		revocation.KindAccount: t.Account,
	}[r.Kind]
	return value == r.Value && value != "" && (r.Issuer == "" || r.Issuer == t.Issuer) && reaches(r.Before, t.IssuedAt)
}

// cutOff is the meaning of many records: one that matches is enough, but of suspensions only the last counts.
func cutOff(records []revocation.Record, t authz.TokenFact) bool {
	var suspended revocation.Record
	for _, r := range records {
		switch {
		case !matches(r, t):
		case r.Kind != revocation.KindSuspension:
			return true
		case r.At.After(suspended.At), r.At.Equal(suspended.At) && !r.Lifted:
			suspended = r
		}
	}
	return !suspended.At.IsZero() && !suspended.Lifted
}

// TestSet_MatchesAsTheRecordsSay compares a set, and one that syncs with it, with cutOff.
func TestSet_MatchesAsTheRecordsSay(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		store := memory.NewRevocations()
		here, there := revocation.NewSet(store, time.Minute, noon), revocation.NewSet(store, time.Minute, noon)
		var records []revocation.Record
		for range rapid.IntRange(0, 8).Draw(t, "records") {
			r := fewRecords.Draw(t, "record")
			if _, err := here.Revoke(context.Background(), r); err != nil {
				t.Fatal(err)
			}
			records = append(records, r)
			if rapid.Bool().Draw(t, "sync") {
				if err := there.Sync(context.Background()); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := there.Sync(context.Background()); err != nil {
			t.Fatal(err)
		}
		for range 8 {
			f := fewTokens.Draw(t, "token")
			want := cutOff(records, f)
			if here.Token(&f) != want || there.Token(&f) != want {
				t.Fatalf("%+v is cut off: here %v, there %v, want %v, by\n%+v", f, here.Token(&f), there.Token(&f), want, records)
			}
		}
	})
}
