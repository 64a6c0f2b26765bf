package signals

import (
	"sync"
	"time"
)

// throttle bounds how many refusals are logged, because any client can cause any number of them.
type throttle struct {
	mu     sync.Mutex
	began  time.Time // when the window began
	lines  int       // logged in the window
	silent int       // refusals not logged since the last line
}

const (
	throttleWindow = time.Minute
	throttleLines  = 20
)

// allow reports whether to log a refusal, and how many were not logged since the last logged one.
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
