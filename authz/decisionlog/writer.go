package decisionlog

import (
	"bytes"
	"io"
)

// writer writes what a Log has gathered. It belongs to one goroutine.
type writer struct {
	w       io.Writer
	l       *Log
	failing bool
	torn    bool // the last line was written only in part
}

// flush writes the pending lines. A full disk is reported once, even if many lines are lost.
func (o *writer) flush() {
	l := o.l
	o.follow()
	text := l.pending.Take()
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

// follow makes sure that the next lines go to the file that has the log's name now, if the log is a file.
func (o *writer) follow() {
	file, ok := o.w.(*File)
	if !ok {
		return
	}
	before := file.file
	torn := file.follow()
	o.torn = torn || o.torn && file.file == before // half a line stays in the file that was moved
}

// write writes lines, and first ends one that was cut off before. It returns how many bytes of the lines were written.
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
