package bolt

import (
	"log/slog"
	"sync"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// faults logs when the disk stops taking writes, and when it takes them again: one line each, whatever fails in between. A full
// disk is one event, though it stops both lanes.
type faults struct {
	log *slog.Logger

	mu      sync.Mutex
	failing faultSet
	refused int // transactions that failed since all was well
}

// faultSet says which writes fail.
type faultSet byte

const (
	faultOfFile faultSet = 1 << iota
	faultOfLog
)

// begin notes a transaction that could not be written, and makes the answer to it.
func (f *faults) begin(of faultSet, err error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.failing == 0 {
		f.refused = 0
		f.log.Error("cannot write to the data file: until it can be written, nothing is granted and nothing is changed", "error", err)
	}
	f.failing |= of
	f.refused++
	return authz.Errorf(authz.KindUnavailable, "not written: %w", err)
}

// over notes a transaction that was written.
func (f *faults) over(of faultSet) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.failing == 0 {
		return
	}
	if f.failing &^= of; f.failing == 0 {
		f.log.Info("the data file can be written again", "refused", f.refused)
	}
}
