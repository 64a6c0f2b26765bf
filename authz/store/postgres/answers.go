package postgres

import (
	"context"
	"sync"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz/quota"
)

// answers bounds the work for other nodes. A question that comes when all hands are busy gets no answer: it must not hold up those
// that read the messages, nor wait until nobody wants to know any more.
type answers struct {
	ctx     context.Context // ends when the process stops answering
	cancel  context.CancelFunc
	recalls chan struct{} // one entry for each recall that is being answered
	lends   chan struct{}

	wg *sync.WaitGroup
}

const (
	maxRecalls = 64 // each waits for the ledger
	maxLends   = 64
)

func newAnswers() answers {
	ctx, cancel := context.WithCancel(context.Background())
	return answers{
		ctx: ctx, cancel: cancel, recalls: make(chan struct{}, maxRecalls), lends: make(chan struct{}, maxLends), wg: &sync.WaitGroup{},
	}
}

// close waits for what is being answered. No answer may begin after it.
func (a *answers) close() {
	a.cancel()
	a.wg.Wait()
}

// do runs f, unless all hands are busy.
func (a *answers) do(hands chan struct{}, f func()) {
	select {
	case hands <- struct{}{}:
		a.wg.Go(func() {
			defer func() { <-hands }()
			f()
		})
	default:
	}
}

// receive handles the payload of a notification. It does not block. What it does not understand is not meant for this version.
func (m *messages) receive(channel, payload string) {
	l, err := openLetter(payload)
	if err != nil || !isInbox(l.Inbox) || l.Inbox == m.out.inbox {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range l.Messages {
		if msg := &l.Messages[i]; !m.closed && msg.sound() {
			m.receiveLocked(msg, l.Inbox, channel == nodesChannel)
		}
	}
}

func (m *messages) receiveLocked(msg *message, inbox string, toAll bool) {
	k := m.acquaintLocked(msg.From)
	k.inbox, k.silent = inbox, time.Time{}
	switch msg.Verb {
	case goodbye:
		k.left = true
	case reply:
		m.answeredLocked(msg)
	case askRecall, askLend:
		last := &k.direct
		if toAll {
			last = &k.toAll
		}
		if msg.Number > *last {
			*last = msg.Number
			m.questionedLocked(msg, inbox)
		}
	}
}

// answeredLocked passes an answer on. Each node has one.
func (m *messages) answeredLocked(msg *message) {
	if q := m.asked[msg.Number]; q != nil && q.waiting[msg.From] {
		delete(q.waiting, msg.From)
		q.answers <- answer{msg.From, msg.Units}
	}
}

// questionedLocked has the nodes of this process answer, those that are asked.
func (m *messages) questionedLocked(msg *message, inbox string) {
	b, err := quota.ParseKey(string(msg.Bucket))
	if err != nil || m.out.busy() {
		return
	}
	until := time.Now().Add(time.Duration(msg.Wait) * time.Millisecond)
	for node, p := range m.peers {
		if node == msg.From || msg.To != "" && node != msg.To {
			continue
		}
		hands, act := m.answers.recalls, func() int64 { return m.giveBack(p, b, until) }
		if msg.Verb == askLend {
			hands, act = m.answers.lends, func() int64 { return p.Lend(msg.rateRequest(b)) }
		}
		m.answers.do(hands, func() {
			units := act()
			m.answer(outgoing{channel: inbox, until: time.Now().Add(postWait)}, &message{Verb: reply, Number: msg.Number, From: node, Units: units})
		})
	}
}

func (m *messages) giveBack(p quota.Peer, b quota.Bucket, until time.Time) int64 {
	ctx, cancel := context.WithDeadline(m.answers.ctx, until)
	defer cancel()
	p.GiveBack(ctx, b)
	return 0
}

// answer sends an answer of a node, unless it has left meanwhile.
func (m *messages) answer(o outgoing, msg *message) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.peers[msg.From]; !ok || m.closed {
		return
	}
	if body, ok := encode(msg); ok {
		o.body = body
		m.out.send(o)
	}
}
