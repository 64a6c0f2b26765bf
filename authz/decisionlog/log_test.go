package decisionlog

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/check"
)

const secret = "tk_live_secret"

func entry() *check.Entry {
	d := authz.Deny(authz.Answer{ID: "d1", Status: 402, Reason: authz.ReasonQuotaExceeded})
	return &check.Entry{
		At: time.Unix(0, 0), Took: time.Millisecond, Decision: &d, Facts: &authz.Facts{Key: authz.KeyFact{ID: "key_1", Status: authz.KeyActive}},
		Request: &authz.Request{HTTP: &authz.HTTP{
			Method: "GET", Path: "/v1/x?api_key=" + secret, Body: secret,
			Headers: authz.Headers{{Name: "x-api-key", Value: secret}, {Name: "x-request-id", Value: "r1"}},
		}},
	}
}

func TestRecord_WritesNoSecrets(t *testing.T) {
	var out bytes.Buffer
	l := New(&out, slog.New(slog.DiscardHandler))
	l.Record(entry())
	l.Close()
	var got Line
	if err := json.Unmarshal(out.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	if got.DecisionID != "d1" || got.Status != 402 || got.Reason != authz.ReasonQuotaExceeded || got.Path != "/v1/x" || got.RequestID != "r1" {
		t.Errorf("%+v", got)
	}
	if strings.Contains(out.String(), secret) {
		t.Errorf("a secret is in the log: %s", &out)
	}
}

// TestRecord_NamesTheRoute, or what is wrong with the path. A line without either has no members for them.
func TestRecord_NamesTheRoute(t *testing.T) {
	ok := authz.PathFact{State: authz.PathOK}
	for _, c := range []struct {
		path  authz.PathFact
		route authz.RouteFact
		want  string
	}{
		{ok, authz.RouteFact{State: authz.RouteOK, Route: &authz.Route{Name: "orders"}, Params: []authz.Param{{Name: "id", Value: secret}}}, `"path":"/v1/x","route":"orders","request_id"`},
		{ok, authz.RouteFact{State: authz.RouteNone}, `"path":"/v1/x","request_id"`},
		{authz.PathFact{State: authz.PathMalformed, Fault: authz.PathMatrix}, authz.RouteFact{State: authz.RouteNone}, `"path":"/v1/x","path_fault":"matrix_parameter","request_id"`},
		{authz.PathFact{}, authz.RouteFact{}, `"path":"/v1/x","request_id"`},
	} {
		var out bytes.Buffer
		l := New(&out, slog.New(slog.DiscardHandler))
		e := entry()
		e.Facts.Path, e.Facts.Route = c.path, c.route
		l.Record(e)
		found, ok := l.Find(t.Context(), "d1")
		l.Close()
		if !strings.Contains(out.String(), c.want) || strings.Contains(out.String(), secret) {
			t.Errorf("want %s in\n%s", c.want, &out)
		}
		if !ok || found.Route != c.route.RouteName() || found.PathFault != string(c.path.Fault) {
			t.Errorf("found %+v", found)
		}
	}
}

// TestRecord_NumbersCharges from 1, also those whose line is dropped, and says whose units they took.
func TestRecord_NumbersCharges(t *testing.T) {
	var out bytes.Buffer
	l := newLog(slog.New(slog.DiscardHandler))
	w := &writer{w: &out, l: l}
	allow := authz.Allow(authz.Answer{ID: "a1"})
	charged := func(key authz.KeyFact, token authz.TokenFact) {
		e := entry()
		e.Decision, e.Facts = &allow, &authz.Facts{Key: key, Token: token}
		e.Charge, e.Reservation = authz.Charge{"credits": 2}, "node-1.7"
		l.Record(e)
	}
	charged(authz.KeyFact{ID: "key_1", Lineage: "key_1", Status: authz.KeyActive}, authz.TokenFact{Status: authz.TokenMissing})
	l.Record(entry())
	charged(authz.KeyFact{ID: "key_2", Lineage: "key_1", Status: authz.KeyActive}, authz.TokenFact{Status: authz.TokenMissing})
	w.flush()
	for l.Dropped() == 0 {
		charged(authz.KeyFact{}, authz.TokenFact{})
	}
	seen := l.charged.Load()
	l.pending.Take()
	charged(authz.KeyFact{Status: authz.KeyMissing}, authz.TokenFact{Status: authz.TokenValid, Issuer: "i", Client: "crm"})
	charged(authz.KeyFact{Status: authz.KeyMissing}, authz.TokenFact{Status: authz.TokenValid, Issuer: "i", Subject: "alice", Client: "crm"})
	w.flush()
	var got []string
	for line := range strings.Lines(out.String()) {
		var m Line
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			t.Fatal(err)
		}
		got = append(got, fmt.Sprintf("%s %d lineage=%s client=%s", m.RID, m.Seq, m.Lineage, m.Client))
	}
	want := []string{
		"node-1.7 1 lineage= client=", " 0 lineage= client=", "node-1.7 2 lineage=key_1 client=",
		fmt.Sprintf("node-1.7 %d lineage= client=crm", seen+1), fmt.Sprintf("node-1.7 %d lineage= client=", seen+2),
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// disk can be full.
type disk struct {
	full bool
	bytes.Buffer
}

func (d *disk) Write(p []byte) (int, error) {
	if d.full {
		return 0, errors.New("disk full")
	}
	return d.Buffer.Write(p)
}

// TestWriter_FullDisk fills the disk while lines come, and empties it again, twice.
func TestWriter_FullDisk(t *testing.T) {
	d, said := &disk{}, new(bytes.Buffer)
	l := newLog(slog.New(slog.NewTextHandler(said, nil)))
	out := &writer{w: d, l: l}
	const lines = 10
	for round := range 2 {
		for _, full := range []bool{true, true, false} {
			d.full = full
			for range lines {
				l.Record(entry())
			}
			out.flush()
		}
		if n := strings.Count(d.String(), "\n"); n != (round+1)*lines || l.Dropped() != uint64(2*(round+1)*lines) {
			t.Errorf("round %d: %d lines were written and %d dropped", round, n, l.Dropped())
		}
	}
	if text := said.String(); strings.Count(text, "level=ERROR") != 2 || strings.Count(text, "level=INFO") != 2 {
		t.Errorf("want one message when the disk is full and one when it is not any more, twice:\n%s", text)
	}
}

// smallDisk has room for some bytes.
type smallDisk struct {
	room int
	bytes.Buffer
}

func (b *smallDisk) Write(p []byte) (int, error) {
	n := min(len(p), b.room)
	b.room -= n
	_, _ = b.Buffer.Write(p[:n])
	if n < len(p) {
		return n, errors.New("disk full")
	}
	return n, nil
}

// TestWriter_HalfALineSpoilsNoOther fills the disk in the middle of the second of three lines.
func TestWriter_HalfALineSpoilsNoOther(t *testing.T) {
	l := newLog(slog.New(slog.DiscardHandler))
	d := &smallDisk{}
	out := &writer{w: d, l: l}
	three := func() {
		for range 3 {
			l.Record(entry())
		}
		out.flush()
	}
	d.room = 1 << 20
	three()
	size := d.Len() / 3
	d.room = size + size/2
	three()
	three() // no room at all
	d.room = 1 << 20
	three()
	whole := 0
	for line := range strings.Lines(d.String()) {
		if json.Valid([]byte(line)) {
			whole++
		}
	}
	if lines := strings.Count(d.String(), "\n"); whole != 7 || lines != 8 || l.Dropped() != 5 {
		t.Errorf("%d whole lines of %d, %d dropped, want 7 of 8 and 5", whole, lines, l.Dropped())
	}
}

// TestLine_IsWhatEncodingJSONWrites compares lines with those that encoding/json makes of the same values.
func TestLine_IsWhatEncodingJSONWrites(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := func() string {
			return rapid.OneOf(rapid.Just(""), rapid.StringMatching("[a-z/<\"]{1,6}"), rapid.String()).Draw(t, "text")
		}
		line := Line{
			DecisionID: text(), At: time.Unix(rapid.Int64Range(0, 4e9).Draw(t, "at"), rapid.Int64Range(0, 999999999).Draw(t, "ns")).UTC(),
			TookUS: rapid.Int64().Draw(t, "took"), Allowed: rapid.Bool().Draw(t, "allowed"), Status: rapid.IntRange(0, 599).Draw(t, "status"),
			Reason: authz.Reason(text()), DryRun: authz.Reason(text()), Cause: text(), KeyStatus: text(), KeyID: text(), Token: text(),
			TokenFault: text(), TokenID: text(), Issuer: text(), Subject: text(), Account: text(), Plan: text(), Method: text(), Host: text(),
			Path: text(), PathFault: text(), Route: text(), RequestID: text(), Policy: text(), Peer: text(), KeyHint: text(),
			Lineage: text(), Client: text(), RID: text(), Seq: rapid.Uint64().Draw(t, "seq"),
			Charge: rapid.MapOfN(rapid.String(), rapid.Int64(), 0, 3).Draw(t, "charge"),
		}
		line.PolicyErrors = rapid.SliceOfN(rapid.String(), 0, 3).Draw(t, "errors")
		var want bytes.Buffer
		if err := json.NewEncoder(&want).Encode(line); err != nil {
			t.Fatal(err)
		}
		if got := string(line.append(nil)); got != want.String() {
			t.Fatalf("got  %swant %s", got, &want)
		}
	})
}

// stuck blocks until it is closed, and then fails.
type stuck chan struct{}

func (s stuck) Write([]byte) (int, error) {
	<-s
	return 0, errors.New("disk full")
}

func TestRecord_NeverBlocks(t *testing.T) {
	w, said := make(stuck), new(bytes.Buffer)
	l := New(w, slog.New(slog.NewTextHandler(said, nil)))
	for range 3 * pendingMax / 200 {
		l.Record(entry())
	}
	if l.Dropped() == 0 {
		t.Error("nothing was dropped while the writer stood still")
	}
	close(w)
	l.Close()
	if n := strings.Count(said.String(), "\n"); n != 1 {
		t.Errorf("a full disk was reported %d times", n)
	}
}

// TestFind_SeesWhatWasRecordedBefore finds decisions at once, and still finds the few denials after many allows. The log must
// not keep more than its limit.
func TestFind_SeesWhatWasRecordedBefore(t *testing.T) {
	l := New(io.Discard, slog.New(slog.DiscardHandler))
	defer l.Close()
	l.Record(entry())
	if line, ok := l.Find(t.Context(), "d1"); !ok || line.RequestID != "r1" || line.Status != 402 {
		t.Fatalf("%+v, %v", line, ok)
	}
	allow := entry()
	*allow.Decision = authz.Allow(authz.Answer{ID: "a1"})
	allow.Request.HTTP.Host = strings.Repeat("h", 900)
	for i := range 4 * keptBytes / 1000 {
		l.Record(allow)
		if i%1000 == 0 { // let the writer catch up: nothing may be dropped here
			l.Find(t.Context(), "a1")
		}
	}
	if _, ok := l.Find(t.Context(), "a1"); !ok {
		t.Error("the last allow is not found")
	}
	if _, ok := l.Find(t.Context(), "d1"); !ok {
		t.Error("allows pushed out a denial")
	}
	if r := &l.recent; len(r.allowed.young)+len(r.allowed.old) > 2*keptBytes || l.Dropped() > 0 {
		t.Errorf("%d and %d bytes are kept, %d dropped", len(r.allowed.young), len(r.allowed.old), l.Dropped())
	}
	allow.Request.HTTP.Host = `x","request_id":"forged","decision_id":"d1`
	l.Record(allow)
	if line, ok := l.Find(t.Context(), "forged"); ok {
		t.Errorf("a caller's text passes for a member: %+v", line)
	}
}

// TestFind_DoesNotWaitForAStuckWriter finds what was written before, as soon as the caller's context ends.
func TestFind_DoesNotWaitForAStuckWriter(t *testing.T) {
	w := make(stuck)
	l := New(w, slog.New(slog.DiscardHandler))
	l.Record(entry())
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if _, ok := l.Find(ctx, "nothing"); ok {
		t.Error("found")
	}
	if _, ok := l.Find(ctx, "d1"); !ok {
		t.Error("a decision that is stuck on its way to the disk is not found")
	}
	close(w)
	l.Close()
}

// BenchmarkRecord is what a check pays for its line.
func BenchmarkRecord(b *testing.B) {
	l := New(io.Discard, slog.New(slog.DiscardHandler))
	defer l.Close()
	e := entry()
	b.ReportAllocs()
	for b.Loop() {
		l.Record(e)
	}
}

// BenchmarkLine makes the text of a line by hand (on) and with encoding/json (off).
func BenchmarkLine(b *testing.B) {
	line := lineOf(entry())
	b.Run("byhand=on", func(b *testing.B) {
		b.ReportAllocs()
		var room [typicalLine]byte
		for b.Loop() {
			line.append(room[:0])
		}
	})
	b.Run("byhand=off", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := json.Marshal(&line); err != nil {
				b.Fatal(err)
			}
		}
	})
}
