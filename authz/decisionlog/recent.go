package decisionlog

import (
	"bytes"
	"context"
	"encoding/json"
	"sync"
)

// keptBytes is how much is kept of denials, and as much of allows: between one and two times this many bytes of lines.
const keptBytes = 4 << 20

// recent keeps the lines of recent decisions in memory, denials apart from allows: a stream of the one must not drive out
// the few of the other. The log's writer fills it with whole batches, so a check does nothing for it.
type recent struct {
	mu              sync.Mutex
	denied, allowed generations
}

// generations are lines in the order in which they came. The older half is dropped whole when the newer one is full.
type generations struct{ young, old []byte }

func (g *generations) add(line []byte) {
	if len(g.young)+len(line) > keptBytes {
		g.young, g.old = g.old[:0], g.young
	}
	g.young = append(g.young, line...)
}

// find returns the last line that has the text in it, nil if there is none.
func (g *generations) find(text []byte) []byte {
	for _, lines := range [...][]byte{g.young, g.old} {
		if at := bytes.LastIndex(lines, text); at >= 0 {
			from, to := bytes.LastIndexByte(lines[:at], '\n')+1, at+bytes.IndexByte(lines[at:], '\n')
			return lines[from:to]
		}
	}
	return nil
}

var deniedMark = []byte(`,"allowed":false`)

func (r *recent) add(lines []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for len(lines) > 0 {
		n := bytes.IndexByte(lines, '\n') + 1
		line := lines[:n]
		lines = lines[n:]
		// What stands before the mark is ours alone, so that no text of a caller can hold it.
		if bytes.Contains(line[:min(n, 160)], deniedMark) {
			r.denied.add(line)
		} else {
			r.allowed.add(line)
		}
	}
}

// find returns the decision with that id, or else the last one about a request with it.
func (r *recent) find(id string) (Line, bool) {
	// Quotes inside a text are escaped, so this stands where a member begins and nowhere else.
	for _, member := range [...]string{`{"decision_id":`, `,"request_id":`} {
		text := appendText([]byte(member), id)
		if line, ok := r.last(text); ok {
			return line, true
		}
	}
	return Line{}, false
}

func (r *recent) last(text []byte) (last Line, found bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, g := range [...]*generations{&r.denied, &r.allowed} {
		var line Line
		if raw := g.find(text); raw != nil && json.Unmarshal(raw, &line) == nil && (!found || line.At.After(last.At)) {
			last, found = line, true
		}
	}
	return last, found
}

// Find returns a recent decision by its id, or the last one about the request with that x-request-id. It sees every
// decision that was recorded before it was called, as long as the log can be written.
func (l *Log) Find(ctx context.Context, id string) (Line, bool) {
	if id == "" {
		return Line{}, false
	}
	there := make(chan struct{})
	select {
	case l.asked <- there:
		select {
		case <-there:
		case <-ctx.Done():
		}
	case <-l.done:
	case <-ctx.Done(): // the writer is stuck: what it wrote before is still there
	}
	return l.recent.find(id)
}
