package postgres

import (
	"context"
	"runtime"
	"slices"
	"time"
)

// outbox sends messages to other processes. All that wait share one transaction: NOTIFY takes a lock at its commit that is there once
// for all databases of the server, so that transactions that notify wait for each other.
type outbox struct {
	inbox string
	// notify sends each payload to the channel of the same index, in that order and in one transaction.
	notify func(ctx context.Context, channels, payloads []string) error
	queue  chan outgoing
}

// outgoing is a message that waits.
type outgoing struct {
	channel string
	body    []byte
	until   time.Time // when nobody waits for it any more
	lost    func()    // is called if it is known that it was not sent; may be nil
}

const (
	maxWaiting = 4096        // messages: more are not sent
	maxPost    = 1024        // messages in one transaction
	postWait   = time.Second // for one transaction
)

func newOutbox(inbox string, notify func(context.Context, []string, []string) error) *outbox {
	return &outbox{inbox: inbox, notify: notify, queue: make(chan outgoing, maxWaiting)}
}

// send has a message sent, and returns false if too many wait. It does not block.
func (o *outbox) send(m outgoing) bool {
	select {
	case o.queue <- m:
		return true
	default:
		return false
	}
}

// busy reports whether so many messages wait that an answer may come too late.
func (o *outbox) busy() bool { return len(o.queue) > maxWaiting/2 }

// run sends until quit is closed, and then what still waits.
func (o *outbox) run(quit <-chan struct{}) {
	for {
		select {
		case m := <-o.queue:
			o.post(o.gather(m))
			continue
		default:
		}
		select {
		case m := <-o.queue:
			o.post(o.gather(m))
		case <-quit:
			return
		}
	}
}

// gather takes the messages that wait and that somebody still waits for.
func (o *outbox) gather(first outgoing) []outgoing {
	runtime.Gosched() // others may be about to send
	now, group := time.Now(), []outgoing{}
	for m := first; ; {
		if now.Before(m.until) {
			group = append(group, m)
		} else {
			m.drop()
		}
		if len(group) == maxPost {
			return group
		}
		select {
		case m = <-o.queue:
		default:
			return group
		}
	}
}

// post sends a group. Within a channel the order stays: whoever reads it recognises by its number what comes twice.
func (o *outbox) post(group []outgoing) {
	if len(group) == 0 {
		return
	}
	var channels []string
	bodies := make(map[string][][]byte)
	for _, m := range group {
		if _, ok := bodies[m.channel]; !ok {
			channels = append(channels, m.channel)
		}
		bodies[m.channel] = append(bodies[m.channel], m.body)
	}
	var to, payloads []string
	for _, channel := range channels {
		letters := pack(o.inbox, bodies[channel])
		to, payloads = append(to, slices.Repeat([]string{channel}, len(letters))...), append(payloads, letters...)
	}
	ctx, cancel := context.WithTimeout(context.Background(), postWait)
	defer cancel()
	if err := o.notify(ctx, to, payloads); err != nil {
		for _, m := range group {
			m.drop()
		}
	}
}

func (m *outgoing) drop() {
	if m.lost != nil {
		m.lost()
	}
}
