package decisionlog

import (
	"bytes"
	"encoding/json"
	"sync"
)

// keptBytes is the size in bytes of one generation. Denials and allows have two generations each.
const keptBytes = 4 << 20

// recent keeps the lines of recent decisions in memory. Denials and allows are apart, so that many of one kind do not
// push out the few of the other. The log's writer fills it, so it costs a check nothing.
type recent struct {
	mu              sync.Mutex
	denied, allowed generations
}

// generations are lines in the order in which they came. When young is full, old is dropped whole and young becomes old.
type generations struct{ young, old []byte }

func (g *generations) add(line []byte) {
	if len(g.young)+len(line) > keptBytes {
		g.young, g.old = g.old[:0], g.young
	}
	g.young = append(g.young, line...)
}

// find returns the last line that contains the text, nil if there is none.
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
		// No text of a caller stands before the mark, so no caller can forge it.
		if bytes.Contains(line[:min(n, 160)], deniedMark) {
			r.denied.add(line)
		} else {
			r.allowed.add(line)
		}
	}
}

// find returns the decision with that id, or else the last one about a request with that id.
func (r *recent) find(id string) (Line, bool) {
	// Quotes inside a text are escaped, so this matches only where a member begins.
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
