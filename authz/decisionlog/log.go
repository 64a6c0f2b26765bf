package decisionlog

import (
	"context"
	"io"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz/check"
	"github.com/tollkeeper-authz/tollkeeper/authz/decisionlog/linebuffer"
)

const (
	// pendingMax is the number of bytes that may wait for the writer. If more arrive, lines are dropped.
	pendingMax = 4 << 20
	// gatherTime is how long lines are collected before they are written. Waking the writer for each line would cost more
	// than making the line. A process that is killed loses the lines of this time, and those of one write.
	gatherTime = 5 * time.Millisecond
	// typicalLine is the length up to which a line is made on the stack.
	typicalLine = 1024
)

// Log writes decisions. Its methods may be called concurrently.
type Log struct {
	wake    chan struct{}      // holds a value while lines wait
	flushes chan chan struct{} // callers who wait until the lines so far are written; the writer closes what they send
	closing chan struct{}
	done    chan struct{}
	dropped atomic.Uint64
	charged atomic.Uint64 // lines with a charge so far
	log     *slog.Logger
	pending *linebuffer.Buffer
	recent  recent
}

// New starts a log that writes to w until Close.
func New(w io.Writer, log *slog.Logger) *Log {
	l := newLog(log)
	go l.run(&writer{w: w, l: l})
	return l
}

// newLog makes a log without a writer.
func newLog(log *slog.Logger) *Log {
	return &Log{
		wake: make(chan struct{}, 1), flushes: make(chan chan struct{}), closing: make(chan struct{}), done: make(chan struct{}),
		log: log, pending: linebuffer.New(pendingMax),
	}
}

// Record queues one decision.
func (l *Log) Record(e *check.Entry) {
	var room [typicalLine]byte
	line := lineOf(e)
	if line.RID != "" {
		line.Seq = l.charged.Add(1) // also if the line is dropped: the gap shows that one is missing
	}
	if !l.pending.Add(line.append(room[:0])) {
		l.dropped.Add(1)
	}
	l.wakeWriter()
}

// Reopen makes the writer open the log's file again if it was moved or removed, even if there is no decision to write.
func (l *Log) Reopen() { l.wakeWriter() }

func (l *Log) wakeWriter() {
	select {
	case l.wake <- struct{}{}:
	default: // it is about to look anyway
	}
}

// Dropped is how many decisions were not written.
func (l *Log) Dropped() uint64 { return l.dropped.Load() }

// Close writes what is queued. Record must not be called any more.
func (l *Log) Close() {
	close(l.closing)
	<-l.done
}

// Find returns a recent decision by its id, or the last one about the request with that x-request-id. It sees every
// decision that was recorded before the call. If the writer is stuck, it waits until the context ends, and then sees only
// what was written.
func (l *Log) Find(ctx context.Context, id string) (Line, bool) {
	if id == "" {
		return Line{}, false
	}
	flushed := make(chan struct{})
	select {
	case l.flushes <- flushed:
		select {
		case <-flushed:
		case <-ctx.Done():
		}
	case <-l.done:
	case <-ctx.Done():
	}
	return l.recent.find(id)
}

func (l *Log) run(out *writer) {
	defer close(l.done)
	for {
		var flushed chan struct{}
		select {
		case <-l.wake:
		case flushed = <-l.flushes:
		case <-l.closing:
			out.flush()
			return
		}
		if flushed == nil {
			select {
			case <-time.After(gatherTime):
			case flushed = <-l.flushes:
			case <-l.closing:
			}
		}
		out.flush()
		if flushed != nil {
			close(flushed)
		}
	}
}
