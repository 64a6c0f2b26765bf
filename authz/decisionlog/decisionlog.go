// Package decisionlog writes what was decided and why, one JSON object a line. It never holds up a check: a line that
// cannot be taken at once is dropped and counted. It writes no header but x-request-id, no query string and no body. A
// cause is the policy engine's own words, which may quote what a rule was working on.
package decisionlog

import (
	"bytes"
	"encoding/json"
	"io"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/check"
)

// Line is one decision as it is written.
type Line struct {
	DecisionID string       `json:"decision_id"`
	At         time.Time    `json:"at"`
	TookUS     int64        `json:"took_us"`
	Allowed    bool         `json:"allowed"`
	Status     int          `json:"status,omitempty"`
	Reason     authz.Reason `json:"reason,omitempty"`
	DryRun     authz.Reason `json:"dry_run_reason,omitempty"`
	Cause      string       `json:"cause,omitempty"`
	KeyStatus  string       `json:"key_status,omitempty"`
	KeyID      string       `json:"key_id,omitempty"`
	Token      string       `json:"token_status,omitempty"`
	TokenFault string       `json:"token_fault,omitempty"`
	TokenID    string       `json:"token_id,omitempty"`
	Issuer     string       `json:"issuer,omitempty"`
	Subject    string       `json:"subject,omitempty"`
	Account    string       `json:"account,omitempty"`
	Plan       string       `json:"plan,omitempty"`
	Charge     authz.Charge `json:"charge,omitempty"`
	Method     string       `json:"method,omitempty"`
	Host       string       `json:"host,omitempty"`
	Path       string       `json:"path,omitempty"`
	RequestID  string       `json:"request_id,omitempty"`
	Policy     string       `json:"policy,omitempty"`
}

// queueLen is how many lines may wait for the writer.
const queueLen = 4096

// writeAtOnce is how many bytes are gathered while more lines wait.
const writeAtOnce = 4096

// Log writes decisions. Record may be called concurrently.
type Log struct {
	queue   chan Line
	done    chan struct{}
	dropped atomic.Uint64
	log     *slog.Logger
}

// New starts a log that writes to w until Close.
func New(w io.Writer, log *slog.Logger) *Log {
	l := &Log{queue: make(chan Line, queueLen), done: make(chan struct{}), log: log}
	go l.write(w)
	return l
}

// Record queues one decision.
func (l *Log) Record(e *check.Entry) {
	select {
	case l.queue <- lineOf(e):
	default:
		l.dropped.Add(1)
	}
}

// Dropped is how many decisions were not written.
func (l *Log) Dropped() uint64 { return l.dropped.Load() }

// Close writes what is queued. Record must not be called any more.
func (l *Log) Close() {
	close(l.queue)
	<-l.done
}

func (l *Log) write(w io.Writer) {
	defer close(l.done)
	var buf bytes.Buffer
	held := uint64(0) // lines in the buffer
	failing := false
	for line := range l.queue {
		// An encoder of its own for every line, for one that has failed once fails for ever.
		if err := json.NewEncoder(&buf).Encode(line); err != nil {
			l.dropped.Add(1)
			continue
		}
		held++
		if len(l.queue) > 0 && buf.Len() < writeAtOnce {
			continue
		}
		_, err := w.Write(buf.Bytes())
		if err != nil {
			l.dropped.Add(held)
			if !failing { // a full disk is one event, however many lines it costs
				l.log.Error("decision log cannot be written: decisions are dropped and counted until it can", "error", err)
			}
		} else if failing {
			l.log.Info("decision log can be written again", "dropped", l.Dropped())
		}
		failing, held = err != nil, 0
		buf.Reset()
	}
}

func lineOf(e *check.Entry) Line {
	line := Line{
		DecisionID: e.Decision.ID, At: e.At.UTC(), TookUS: e.Took.Microseconds(), Allowed: e.Decision.Allowed(),
		Status: e.Decision.HTTPStatus(), Reason: e.Decision.DeniedFor(), DryRun: e.Would, Cause: e.Cause,
		KeyStatus: string(e.Facts.Key.Status), KeyID: e.Facts.Key.ID, Account: e.Facts.Account.ID, Plan: e.Plan,
		Charge: e.Charge, Policy: e.Revision,
	}
	if t := &e.Facts.Token; t.Status != authz.TokenMissing {
		line.Token, line.TokenFault, line.TokenID, line.Issuer, line.Subject = string(t.Status), t.Fault, t.ID, t.Issuer, t.Subject
	}
	if h := e.Request.HTTP; h != nil {
		line.Method, line.Host, line.RequestID = h.Method, h.Host, h.Headers.Get("x-request-id")
		line.Path, _, _ = strings.Cut(h.Path, "?")
	}
	return line
}
