package bundle

import (
	"context"
	"time"
)

// DefaultPollInterval is how often a Watcher looks at its files unless it is told otherwise.
const DefaultPollInterval = 2 * time.Second

// Watcher notices that the files of a source changed. It compares their content at intervals, which works on every
// file system, network mounts and Kubernetes volumes included. Create one with NewWatcher.
type Watcher struct {
	source   Source
	interval time.Duration
	changed  func(context.Context, Source)
	poke     chan struct{}

	// Run's own:
	loaded  string // the fingerprint that changed was last called for
	pending string // another fingerprint, if the last poll saw one
}

// NewWatcher returns a watcher that compares src with the fingerprint of what is loaded (see Policy.Fingerprint; empty
// if nothing is) every interval, or every DefaultPollInterval if that is not positive.
//
// It calls changed when the fingerprint differs and was the same in two polls in a row, so that files that are being
// written are left alone until they are complete. changed is also called for files that became unreadable. It is not
// called again for the same content: what cannot be loaded today will not load in two seconds.
func NewWatcher(src Source, interval time.Duration, loaded string, changed func(context.Context, Source)) *Watcher {
	if interval <= 0 {
		interval = DefaultPollInterval
	}
	return &Watcher{source: src, interval: interval, changed: changed, poke: make(chan struct{}, 1), loaded: loaded}
}

// Poke makes Run call back at once, whether something changed or not. It never blocks, and several pokes in a row may
// become one call. It may be called from any goroutine, before Run too.
func (w *Watcher) Poke() {
	select {
	case w.poke <- struct{}{}:
	default: // one is waiting already
	}
}

// Run watches until ctx ends. It calls back on its own goroutine, so never twice at the same time, and returns after
// the last call has. It must be called once.
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

// look is the fingerprint now. Files that cannot be read have one too, by what is wrong with them.
func (w *Watcher) look() string {
	f, err := w.source.Fingerprint()
	if err != nil {
		return "unreadable: " + err.Error()
	}
	return f
}
