package signals

import (
	"sync"
	"time"
)

// throttle bounds how many lines the log gets from those who are refused. A stranger can be refused as often as he likes.
type throttle struct {
	mu     sync.Mutex
	began  time.Time // of the window
	lines  int
	silent int // refusals that were not logged
}

const (
	throttleWindow = time.Minute
	throttleLines  = 20
)

// allow reports whether a line is to be logged, and how many were not before it.
func (t *throttle) allow(now time.Time) (ok bool, silent int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if now.Sub(t.began).Abs() >= throttleWindow {
		t.began, t.lines = now, 0
	}
	if t.lines >= throttleLines {
		t.silent++
		return false, 0
	}
	silent, t.silent = t.silent, 0
	t.lines++
	return true, silent
}
