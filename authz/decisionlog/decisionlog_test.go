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

// stuck does not take anything until it is released, and then fails.
type stuck chan struct{}

func (s stuck) Write([]byte) (int, error) {
	<-s
	return 0, errors.New("disk full")
}

func TestRecordNeverBlocks(t *testing.T) {
	w := make(stuck)
	l := New(w, slog.New(slog.DiscardHandler))
	for range 3 * queueLen {
		l.Record(entry())
	}
	if l.Dropped() == 0 {
		t.Error("nothing was dropped while the writer stood still")
	}
	close(w)
	l.Close()
}
