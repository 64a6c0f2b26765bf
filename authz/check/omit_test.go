package check_test

import (
	"slices"
	"testing"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/check"
)

// notesOf are the names of the notes of a decision, with that of its id.
func notesOf(d *authz.Decision) (names []string) {
	if d.NoteID {
		names = append(names, "decision_id")
	}
	for _, n := range d.Notes {
		names = append(names, n.Name)
	}
	slices.Sort(names)
	return names
}

func TestOmitted_NotesOfAnAllow(t *testing.T) {
	known := []string{"account", "decision_id", "key_id", "plan", "rid", "route"} // with a key on a route
	for name, c := range map[string]struct{ keep, want []string }{
		"all": {check.NoteNames(), known}, "none": {nil, nil}, "one": {[]string{"route"}, []string{"route"}},
		"the id": {[]string{"decision_id"}, []string{"decision_id"}}, "one that there is not": {[]string{"issuer"}, nil},
	} {
		w := newWorld(t, nil, check.Options{Answers: check.Answers{Omit: check.AllBut(c.keep, check.IdentityNames())}})
		w.useTable(rule(goodKey))
		if d := w.Check(t.Context(), w.requestOf("ok", "7")); !d.Allowed() || !slices.Equal(notesOf(&d), c.want) || d.ID == "" {
			t.Errorf("%s: allowed %t, notes %q, want %q", name, d.Allowed(), notesOf(&d), c.want)
		}
	}
	for name, want := range map[string]string{"key_id": "key_1", "account": "acme", "plan": "small", "route": "reports"} {
		w := newWorld(t, nil, check.Options{Answers: check.Answers{Omit: check.AllBut([]string{name}, nil)}})
		w.useTable(rule(goodKey))
		d := w.Check(t.Context(), w.requestOf("ok", "7"))
		if got := notesOf(&d); !slices.Equal(got, []string{name}) || d.Notes.Get(name) != want {
			t.Errorf("%s: %v, want %s", name, d.Notes, want)
		}
	}
}

// TestOmitted_NotesOfADryRun: an allow that would be a denial has its reason.
func TestOmitted_NotesOfADryRun(t *testing.T) {
	w := newWorld(t, rule(goodKey), check.Options{DryRun: true, Answers: check.Answers{Omit: check.AllBut([]string{"reason", "route"}, nil)}})
	if d := w.Check(t.Context(), request()); !d.Allowed() || d.Notes.Get("reason") != "key_missing" {
		t.Errorf("allowed %t, notes %v", d.Allowed(), d.Notes)
	}
}

// TestOmitted_NothingOfADenial: operators look for the causes of denials, of which there are few.
func TestOmitted_NothingOfADenial(t *testing.T) {
	w := newWorld(t, nil, check.Options{Answers: check.Answers{Omit: check.AllBut(nil, nil)}})
	w.useTable(always(authz.Verdict{Reason: authz.ReasonRouteUnknown}))
	d := w.Check(t.Context(), w.requestOf("ok", "7"))
	w.wantDeny(t, d, authz.ReasonRouteUnknown)
	if want := []string{"account", "decision_id", "key_id", "plan", "reason", "route"}; !slices.Equal(notesOf(&d), want) {
		t.Errorf("notes %q, want %q", notesOf(&d), want)
	}
	if !d.Headers.Has(check.HeaderReason) || !d.Headers.Has(check.HeaderDecision) {
		t.Errorf("headers %v", d.Headers)
	}
}

// TestOmitted_IdentityCannotBeForged: what is not sent is removed, even if the client or the policy sets it.
func TestOmitted_IdentityCannotBeForged(t *testing.T) {
	own := authz.Verdict{Allowed: true, Headers: authz.Headers{{Name: "x-tollkeeper-plan", Value: "gold"}}}
	w := newWorld(t, always(own), check.Options{Answers: check.Answers{Omit: check.AllBut(nil, []string{"account"})}})
	d := w.Check(t.Context(), request("x-api-key", w.text, "x-tollkeeper-key-id", "key_9", "x.tollkeeper.plan", "gold"))
	if !d.Allowed() || len(d.Headers) != 1 || d.Headers.Get("x-tollkeeper-account") != "acme" {
		t.Fatalf("allowed %t, headers %v", d.Allowed(), d.Headers)
	}
	for _, name := range []string{"x-tollkeeper-key-id", "x-tollkeeper-plan", "x.tollkeeper.plan"} {
		if !slices.Contains(d.RemoveRequestHeaders, name) {
			t.Errorf("%s reaches the upstream: %q are removed", name, d.RemoveRequestHeaders)
		}
	}
}

// TestOmitted_IdentityOfAToken takes away one of the headers at a time.
func TestOmitted_IdentityOfAToken(t *testing.T) {
	for i, name := range check.IdentityNames() {
		keep := slices.Delete(slices.Clone(check.IdentityNames()), i, i+1)
		w, issuer := tokenWorld(t, check.Answers{Omit: check.AllBut(nil, keep)})
		text := issuer.Token(map[string]any{"sub": "alice", "org": "acme"})
		d := w.Check(t.Context(), request("authorization", "Bearer "+text, "x-api-key", w.text))
		if !d.Allowed() || d.Headers.Has("x-tollkeeper-"+name) || !slices.Contains(d.RemoveRequestHeaders, "x-tollkeeper-"+name) || len(d.Headers) != 4 {
			t.Errorf("%s: allowed %t for %s, headers %v, removed %q", name, d.Allowed(), d.DeniedFor(), d.Headers, d.RemoveRequestHeaders)
		}
	}
}
