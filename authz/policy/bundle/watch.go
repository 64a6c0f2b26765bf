package bundle

import (
	"context"
	"time"
)

// DefaultPollInterval is how often a Watcher reads its files by default.
const DefaultPollInterval = 2 * time.Second

// Watcher notices changes of a source's files. It compares their content at intervals, which works on every file system,
// including network mounts and Kubernetes volumes. Create one with NewWatcher.
type Watcher struct {
	source   Source
	interval time.Duration
	changed  func(context.Context, Source)
	poke     chan struct{}

	// Only Run uses these:
	loaded  string // the fingerprint of the last call of changed
	pending string // the fingerprint of the last poll, if it differs from loaded
}

// NewWatcher returns a watcher that compares src with the fingerprint of the loaded files (see Bundle.Fingerprint; empty
// if none are loaded) every interval, or every DefaultPollInterval if interval is not positive.
//
// It calls changed once a new fingerprint is the same in two polls in a row, so that it does not read files that are
// still being written. It also calls changed for files that became unreadable. It does not call again for the same
// content: files that could not be loaded still cannot be loaded two seconds later.
func NewWatcher(src Source, interval time.Duration, loaded string, changed func(context.Context, Source)) *Watcher {
	if interval <= 0 {
		interval = DefaultPollInterval
	}
	return &Watcher{source: src, interval: interval, changed: changed, poke: make(chan struct{}, 1), loaded: loaded}
}

// Poke makes Run call changed at once, even without a change. It never blocks, and several pokes in a row may cause one
// call. Any goroutine may call it, before Run too.
func (w *Watcher) Poke() {
	select {
	case w.poke <- struct{}{}:
	default: // a poke is waiting already
	}
}

// Run watches until ctx ends. It calls changed on its own goroutine, so never twice at the same time, and returns after
// the last call has returned. Call it once.
func (w *Watcher) Run(ctx context.Context) {
	ticker := time.NewTicker(w.interval)
	defer ticker.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-w.poke:
			w.reload(ctx, w.look())
		case <-ticker.C:
			w.poll(ctx)
		}
	}
}

func (w *Watcher) poll(ctx context.Context) {
	now := w.look()
	switch now {
	case w.loaded:
		w.pending = ""
	case w.pending:
		w.reload(ctx, now)
	default:
		w.pending = now
	}
}

func (w *Watcher) reload(ctx context.Context, now string) {
	w.loaded, w.pending = now, ""
	w.changed(ctx, w.source)
}

// look returns the present fingerprint. If the files cannot be read, it is made from the error.
func (w *Watcher) look() string {
	f, err := w.source.Fingerprint()
	if err != nil {
		return "unreadable: " + err.Error()
	}
	return f
}
