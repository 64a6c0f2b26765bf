package quota

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"
)

// LocalMembers is the Members of a ledger that only one process uses: all its nodes live in this process, usually one. No session
// outlives the process. Its methods may be called concurrently.
type LocalMembers struct {
	now func() time.Time

	mu    sync.Mutex
	roll  Roll
	peers map[NodeID]Peer
}

var _ Members = (*LocalMembers)(nil)

// NewLocalMembers has no members yet. Sessions run by that clock.
func NewLocalMembers(now func() time.Time) *LocalMembers {
	return &LocalMembers{now: now, peers: make(map[NodeID]Peer)}
}

// Join is Members.Join.
func (l *LocalMembers) Join(node NodeID, p Peer) (leave func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.peers[node] = p
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.peers, node)
		l.roll.Leave(node)
	}
}

// Renew is Members.Renew.
func (l *LocalMembers) Renew(_ context.Context, node NodeID, s Standing) (Session, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.roll.Renew(node, s, l.now()), nil
}

// At is the instant now of the ledger's clock, who is alive then, and whether the ledger withholds.
func (l *LocalMembers) At(now time.Time) Instant {
	l.mu.Lock()
	defer l.mu.Unlock()
	return Instant{Time: now, Withhold: l.roll.Withholds(now), Alive: func(node NodeID) bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.roll.Alive(node, now)
	}}
}

// Lost notes that the ledger has lost commits: an answer said so.
func (l *LocalMembers) Lost(now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.roll.Lost(now)
}

// Notice notes that another incarnation of the ledger answers (Roll.Notice).
func (l *LocalMembers) Notice(incarnation string, safe bool, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.roll.Notice(incarnation, safe, now)
}

// Copy copies who has a session. restore brings that back.
func (l *LocalMembers) Copy() (restore func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	roll := l.roll
	roll.Members = maps.Clone(roll.Members)
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.roll = roll
	}
}

// others is every node but one, in the order of their names, so that a simulation can be repeated exactly.
func (l *LocalMembers) others(node NodeID) []Peer {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []Peer
	for _, other := range slices.Sorted(maps.Keys(l.peers)) {
		if other != node {
			out = append(out, l.peers[other])
		}
	}
	return out
}

// Recall is Members.Recall. It asks one node after the other.
func (l *LocalMembers) Recall(ctx context.Context, node NodeID, b Bucket) {
	for _, p := range l.others(node) {
		if ctx.Err() != nil {
			return
		}
		p.GiveBack(ctx, b)
	}
}

// Borrow is Members.Borrow.
func (l *LocalMembers) Borrow(ctx context.Context, node NodeID, r RateRequest) (got int64) {
	want := r.Units
	for _, p := range l.others(node) {
		if r.Units = want - got; r.Units <= 0 || ctx.Err() != nil {
			break
		}
		got += p.Lend(r)
	}
	return got
}
