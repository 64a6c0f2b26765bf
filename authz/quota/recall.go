package quota

import (
	"context"
	"maps"
	"slices"
	"sync"
)

// LocalNodes is Ledger.OnRecall and Ledger.Recall for a ledger that only one process uses: all its nodes live in this
// process, usually one. The zero value has no nodes. Its methods may be called concurrently.
type LocalNodes struct {
	mu       sync.Mutex
	giveBack map[NodeID]func(context.Context, Bucket)
}

// OnRecall is Ledger.OnRecall.
func (l *LocalNodes) OnRecall(node NodeID, giveBack func(context.Context, Bucket)) (stop func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.giveBack == nil {
		l.giveBack = make(map[NodeID]func(context.Context, Bucket))
	}
	l.giveBack[node] = giveBack
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.giveBack, node)
	}
}

// Recall is Ledger.Recall. It asks one node after the other in the order of their names, so that a simulation can be
// repeated exactly.
func (l *LocalNodes) Recall(ctx context.Context, node NodeID, b Bucket) {
	l.mu.Lock()
	others := maps.Clone(l.giveBack)
	l.mu.Unlock()
	delete(others, node)
	for _, other := range slices.Sorted(maps.Keys(others)) {
		if ctx.Err() != nil {
			return
		}
		others[other](ctx, b)
	}
}
