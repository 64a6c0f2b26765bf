package decisionlog

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

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

func TestLinesHoldNoSecrets(t *testing.T) {
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

// disk is full until it is not.
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

// TestFullDisk fills the disk while many lines wait, and empties it again.
func TestFullDisk(t *testing.T) {
	const lines = 100 // more than are written at once
	d, said := &disk{full: true}, new(bytes.Buffer)
	for range 2 {
		l := &Log{queue: make(chan Line, queueLen), done: make(chan struct{}), log: slog.New(slog.NewTextHandler(said, nil))}
		for range lines {
			l.Record(entry())
		}
		close(l.queue)
		l.write(&switching{disk: d, until: 3})
		if l.Dropped() == 0 || l.Dropped() >= lines || uint64(strings.Count(d.String(), "\n"))+l.Dropped() != lines {
			t.Errorf("of %d lines %d were written and %d dropped", lines, strings.Count(d.String(), "\n"), l.Dropped())
		}
		d.full = true
		d.Reset()
	}
	if text := said.String(); strings.Count(text, "level=ERROR") != 2 || strings.Count(text, "level=INFO") != 2 {
		t.Errorf("want one line when it begins and one when it ends, twice:\n%s", text)
	}
}

// switching has a disk emptied after some writes.
type switching struct {
	*disk
	until int
}

func (s *switching) Write(p []byte) (int, error) {
	if s.until--; s.until == 0 {
		s.full = false
	}
	return s.disk.Write(p)
}

// stuck does not take anything until it is released, and then fails.
type stuck chan struct{}

func (s stuck) Write([]byte) (int, error) {
	<-s
	return 0, errors.New("disk full")
}

func TestRecordNeverBlocks(t *testing.T) {
	w, said := make(stuck), new(bytes.Buffer)
	l := New(w, slog.New(slog.NewTextHandler(said, nil)))
	for range 3 * queueLen {
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
