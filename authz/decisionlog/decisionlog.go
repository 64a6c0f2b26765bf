// Package decisionlog writes what was decided and why, one JSON object a line. It never holds up a check: a line that
// cannot be taken at once is dropped and counted. It writes no header but x-request-id, no query string and no body. A
// cause is the policy engine's own words, which may quote what a rule was working on.
package decisionlog

import (
	"bytes"
	"io"
	"log/slog"
	"strings"
	"sync"
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
	KeyHint    string       `json:"key_hint,omitempty"` // see check.Entry
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
	Peer       string       `json:"peer,omitempty"` // who spoke to the proxy: an IP address, or the path of a socket
	RequestID  string       `json:"request_id,omitempty"`
	Policy     string       `json:"policy,omitempty"`

	// PolicyErrors tell which functions of the policy failed, as file:line: text.
	PolicyErrors []string `json:"policy_errors,omitempty"`
}

const (
	// pendingMax is how many bytes may wait for the writer. What comes then is dropped.
	pendingMax = 4 << 20
	// gather is how long lines are gathered before they are written: waking the writer for each would cost more than
	// making it.
	gather = 5 * time.Millisecond
)

// Log writes decisions. Record may be called concurrently.
type Log struct {
	some    chan struct{} // has something in it while lines wait
	closing chan struct{}
	done    chan struct{}
	asked   chan chan struct{} // somebody who waits for what was recorded to be among the recent decisions
	dropped atomic.Uint64
	log     *slog.Logger
	pending atomic.Pointer[batch]
	recent  recent
}

// New starts a log that writes to w until Close.
func New(w io.Writer, log *slog.Logger) *Log {
	l := &Log{some: make(chan struct{}, 1), closing: make(chan struct{}), done: make(chan struct{}), asked: make(chan chan struct{}), log: log}
	l.pending.Store(newBatch(pendingMax))
	go l.run(newWriter(w, l))
	return l
}

// rooms are buffers in which lines are made.
var rooms = sync.Pool{New: func() any { return new([1024]byte) }}

// Record queues one decision.
func (l *Log) Record(e *check.Entry) {
	room := rooms.Get().(*[1024]byte)
	defer rooms.Put(room)
	line := lineOf(e)
	text := line.append(room[:0])
	became := l.pending.Load().add(text)
	for became == shut {
		became = l.pending.Load().add(text)
	}
	if became == full {
		l.dropped.Add(1)
	}
	select {
	case l.some <- struct{}{}:
	default:
	}
}

// Reopen has a file that was moved or removed opened anew, also if no decision is made meanwhile.
func (l *Log) Reopen() {
	select {
	case l.some <- struct{}{}:
	default: // the writer is about to look anyway
	}
}

// Dropped is how many decisions were not written.
func (l *Log) Dropped() uint64 { return l.dropped.Load() }

// Close writes what is queued. Record must not be called any more.
func (l *Log) Close() {
	close(l.closing)
	<-l.done
}

func (l *Log) run(out *writer) {
	defer close(l.done)
	for {
		var asked chan struct{}
		select {
		case <-l.some:
		case asked = <-l.asked:
		case <-l.closing:
			out.flush()
			return
		}
		if asked == nil {
			select {
			case <-time.After(gather):
			case asked = <-l.asked:
			case <-l.closing:
			}
		}
		out.flush()
		if asked != nil {
			close(asked)
		}
	}
}

// writer is the other end of the queue.
type writer struct {
	w       io.Writer
	l       *Log
	spare   *batch // the one that is not pending, sealed
	failing bool
	torn    bool // the last thing written is half a line
}

func newWriter(w io.Writer, l *Log) *writer {
	o := &writer{w: w, l: l, spare: newBatch(pendingMax)}
	o.spare.seal()
	return o
}

// flush writes what waits. A full disk is one event, however many lines it costs.
func (o *writer) flush() {
	l := o.l
	o.follow()
	o.spare.reopen()
	o.spare = l.pending.Swap(o.spare)
	text := o.spare.seal()
	if len(text) == 0 {
		return
	}
	l.recent.add(text)
	n, err := o.write(text)
	if err != nil {
		l.dropped.Add(uint64(bytes.Count(text[n:], []byte{'\n'})))
		if !o.failing {
			l.log.Error("decision log cannot be written: decisions are dropped and counted until it can", "error", err)
		}
	} else if o.failing {
		l.log.Info("decision log can be written again", "dropped", l.Dropped())
	}
	o.failing = err != nil
}

// follow makes sure that what is written goes to the file of that name, where it is a file.
func (o *writer) follow() {
	file, ok := o.w.(*File)
	if !ok {
		return
	}
	was := file.file
	torn := file.follow()
	o.torn = torn || o.torn && file.file == was // half a line stays in the file that was moved
}

// write writes lines, after the end of one that was cut off before. It returns how much of them was written.
func (o *writer) write(text []byte) (n int, err error) {
	if o.torn {
		if _, err := o.w.Write([]byte{'\n'}); err != nil {
			return 0, err
		}
		o.torn = false
	}
	n, err = o.w.Write(text)
	o.torn = n > 0 && text[n-1] != '\n'
	return n, err
}

func lineOf(e *check.Entry) Line {
	line := Line{
		DecisionID: e.Decision.ID, At: e.At.UTC(), TookUS: e.Took.Microseconds(), Allowed: e.Decision.Allowed(),
		Status: e.Decision.HTTPStatus(), Reason: e.Decision.DeniedFor(), DryRun: e.DryRunReason, Cause: e.Cause,
		KeyStatus: string(e.Facts.Key.Status), KeyID: e.Facts.Key.ID, KeyHint: e.KeyHint, Account: e.Facts.Account.ID, Plan: e.Plan,
		Charge: e.Charge, Policy: e.Revision,
	}
	if t := &e.Facts.Token; t.Status != authz.TokenMissing {
		line.Token, line.TokenFault, line.TokenID, line.Issuer, line.Subject = string(t.Status), t.Fault, t.ID, t.Issuer, t.Subject
	}
	line.Peer = peerOf(e.Request)
	if h := e.Request.HTTP; h != nil {
		line.Method, line.Host, line.RequestID = h.Method, h.Host, h.Headers.Get("x-request-id")
		line.Path, _, _ = strings.Cut(h.Path, "?")
	}
	line.PolicyErrors = e.PolicyErrors
	return line
}

// peerOf is the address of the client as the proxy saw it, "" if it did not say.
func peerOf(r *authz.Request) string {
	if r.Source == nil || r.Source.Address == nil {
		return ""
	}
	switch a := r.Source.Address; {
	case a.Socket != nil:
		return a.Socket.Address
	case a.Pipe != nil:
		return a.Pipe.Path
	case a.Internal != nil:
		return a.Internal.ServerListenerName
	}
	return ""
}
