package postgres

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz/quota"
)

// messages is what nodes ask of each other: to give back units of a quota, and to lend units of a rate. Nothing of it is durable and
// each message may be lost. A question that is lost is one that nobody answers, a lost answer to a recall delays the units, and what a
// lost answer lends nobody may use until the period ends: never is a unit granted twice.
//
// Questions travel by NOTIFY (message.go, outbox.go), and answers.go answers them. A process that cannot LISTEN asks nobody and
// answers nobody: its callers are told "exhausted" while other nodes hold units, and of a rate they get this node's share.
type messages struct {
	out *outbox
	// others lists the other nodes whose sessions run. It does no I/O.
	others func(quota.NodeID) []quota.NodeID
	// listening reports whether answers can arrive.
	listening func() bool
	answers   answers
	quit      chan struct{} // closed by close

	mu     sync.Mutex
	closed bool
	number uint64 // of the last question
	asked  map[uint64]*question
	peers  map[quota.NodeID]quota.Peer // the nodes of this process
	known  map[quota.NodeID]*acquaintance
	lender quota.NodeID // lent units last
	wg     sync.WaitGroup
}

// acquaintance is what is known of a node by its messages.
type acquaintance struct {
	inbox  string    // of its process, "" if unknown
	silent time.Time // until then nobody waits for its answers: it has not answered
	left   bool
	// The last question that came from it by its inbox and to all: a question of a lower number is a duplicate. Of questions
	// that are sent at once on two channels, either may come first.
	direct, toAll uint64
}

// question is one that waits for answers.
type question struct {
	number  uint64
	waiting map[quota.NodeID]bool // guarded by messages.mu
	answers chan answer           // has room for all
	lost    chan struct{}         // closed when it was not sent
}

func newQuestion(nodes []quota.NodeID) *question {
	q := &question{waiting: make(map[quota.NodeID]bool, len(nodes)), answers: make(chan answer, len(nodes)), lost: make(chan struct{})}
	for _, node := range nodes {
		q.waiting[node] = true
	}
	return q
}

type answer struct {
	node  quota.NodeID
	units int64
}

const (
	maxWait    = 2 * time.Second       // for answers
	silentFor  = 10 * time.Second      // after that a silent node is asked again
	leastWait  = 20 * time.Millisecond // a node that had less time to answer does not count as silent
	maxKnown   = 1000                  // nodes: then those that are gone are forgotten
	goodbyeFor = time.Second           // a goodbye is worth sending
)

// newMessages makes messages for one process, which gets answers at out.inbox. The caller passes what arrives there and at
// nodesChannel to receive.
func newMessages(out *outbox, others func(quota.NodeID) []quota.NodeID, listening func() bool) *messages {
	m := &messages{
		out: out, others: others, listening: listening, quit: make(chan struct{}), answers: newAnswers(),
		asked: make(map[uint64]*question), peers: make(map[quota.NodeID]quota.Peer), known: make(map[quota.NodeID]*acquaintance),
	}
	m.wg.Go(func() { out.run(m.quit) })
	return m
}

// close ends the answering, and waits for what is being answered.
func (m *messages) close() {
	m.mu.Lock()
	was := m.closed
	m.closed = true
	m.mu.Unlock()
	if was {
		return
	}
	m.answers.close()
	close(m.quit)
	m.wg.Wait()
}

// Join is quota.Members.Join, without the session: when leave has returned, nobody gets an answer of the node.
func (m *messages) Join(node quota.NodeID, p quota.Peer) (leave func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.peers[node] = p
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		if _, ok := m.peers[node]; !ok || m.closed {
			return
		}
		delete(m.peers, node)
		if body, ok := encode(&message{Verb: goodbye, From: node}); ok {
			m.out.send(outgoing{channel: nodesChannel, body: body, until: time.Now().Add(goodbyeFor)})
		}
	}
}

// Recall is quota.Members.Recall. It takes at most half of the time that is left: the ledger has to be asked afterwards.
func (m *messages) Recall(ctx context.Context, node quota.NodeID, b quota.Bucket) {
	ctx, cancel, began := inHalf(ctx)
	defer cancel()
	here, others := m.split(node)
	var wg sync.WaitGroup
	defer wg.Wait()
	for _, p := range here {
		wg.Go(func() { p.GiveBack(ctx, b) })
	}
	if len(others) == 0 {
		return
	}
	q := m.ask(ctx, &message{Verb: askRecall, From: node, Bucket: []byte(b.Key())}, others)
	if q == nil {
		return
	}
	defer m.forget(q)
	for range others {
		if _, ok := m.next(ctx, q, began); !ok {
			return
		}
	}
}

// Borrow is quota.Members.Borrow. It takes at most half of the time that is left.
func (m *messages) Borrow(ctx context.Context, node quota.NodeID, r quota.RateRequest) (got int64) {
	ctx, cancel, _ := inHalf(ctx)
	defer cancel()
	here, others := m.split(node)
	for _, p := range here {
		part := r
		if part.Units -= got; part.Units > 0 {
			got += p.Lend(part)
		}
	}
	for _, other := range m.lenders(others) {
		if got >= r.Units || ctx.Err() != nil {
			break
		}
		got += m.borrow(ctx, node, other, &r, r.Units-got)
	}
	return got
}

// borrow asks one node. It leaves half of the time for the others: the node may be gone.
func (m *messages) borrow(ctx context.Context, node, other quota.NodeID, r *quota.RateRequest, units int64) int64 {
	ctx, cancel, began := inHalf(ctx)
	defer cancel()
	q := m.ask(ctx, &message{
		Verb: askLend, From: node, To: other, Bucket: []byte(r.Bucket.Key()), Units: units, Limit: r.Limit.Units, Start: r.Start.UnixNano(),
	}, []quota.NodeID{other})
	if q == nil {
		return 0
	}
	defer m.forget(q)
	a, ok := m.next(ctx, q, began)
	if !ok || a.units <= 0 {
		return 0
	}
	m.mu.Lock()
	m.lender = other
	m.mu.Unlock()
	return min(a.units, units)
}

// inHalf bounds ctx to half of the time that is left.
func inHalf(ctx context.Context) (context.Context, context.CancelFunc, time.Time) {
	began, wait := time.Now(), maxWait
	if end, ok := ctx.Deadline(); ok {
		wait = min(wait, end.Sub(began)/2)
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	return ctx, cancel, began
}

// split returns the other nodes: those of this process, and of the rest those whose answers are worth waiting for.
func (m *messages) split(node quota.NodeID) (here []quota.Peer, elsewhere []quota.NodeID) {
	others := m.others(node)
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	for other, p := range m.peers {
		if other != node {
			here = append(here, p)
		}
	}
	for _, other := range others {
		if _, ok := m.peers[other]; ok {
			continue
		}
		if k := m.known[other]; k == nil || !k.left && !now.Before(k.silent) {
			elsewhere = append(elsewhere, other)
		}
	}
	return here, elsewhere
}

// lenders is the order in which nodes are asked to lend: first the one that lent last, then from anywhere, so that not all ask the
// same node first.
func (m *messages) lenders(nodes []quota.NodeID) []quota.NodeID {
	rand.Shuffle(len(nodes), func(i, j int) { nodes[i], nodes[j] = nodes[j], nodes[i] })
	m.mu.Lock()
	defer m.mu.Unlock()
	if i := slices.Index(nodes, m.lender); i > 0 {
		nodes[0], nodes[i] = nodes[i], nodes[0]
	}
	return nodes
}

// ask sends a question to those nodes. It returns nil if it cannot be sent.
func (m *messages) ask(ctx context.Context, msg *message, nodes []quota.NodeID) *question {
	end, _ := ctx.Deadline()
	if msg.Wait = time.Until(end).Milliseconds(); msg.Wait <= 0 || !m.listening() {
		return nil
	}
	q := newQuestion(nodes)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.number++
	q.number, msg.Number = m.number, m.number
	body, ok := encode(msg)
	if !ok || m.closed {
		return nil
	}
	channel := nodesChannel
	if k := m.known[msg.To]; k != nil && k.inbox != "" {
		channel = k.inbox
	}
	// Under the lock, so that questions leave in the order of their numbers.
	if !m.out.send(outgoing{channel: channel, body: body, until: end, lost: func() { close(q.lost) }}) {
		return nil
	}
	m.asked[q.number] = q
	return q
}

// next waits for an answer. If none comes, it notes who is silent.
func (m *messages) next(ctx context.Context, q *question, began time.Time) (answer, bool) {
	select {
	case a := <-q.answers:
		return a, true
	case <-q.lost:
	case <-ctx.Done():
		if time.Since(began) >= leastWait && ctx.Err() == context.DeadlineExceeded {
			m.noteSilent(q)
		}
	}
	return answer{}, false
}

// noteSilent has nobody wait for the nodes that have not answered, until they are heard of.
func (m *messages) noteSilent(q *question) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for node := range q.waiting {
		m.acquaintLocked(node).silent = time.Now().Add(silentFor)
	}
}

func (m *messages) forget(q *question) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.asked, q.number)
}

// acquaintLocked is what is known of a node.
func (m *messages) acquaintLocked(node quota.NodeID) *acquaintance {
	k := m.known[node]
	if k == nil {
		if len(m.known) >= maxKnown {
			clear(m.known) // what matters of it is learned again
		}
		k = &acquaintance{}
		m.known[node] = k
	}
	return k
}
