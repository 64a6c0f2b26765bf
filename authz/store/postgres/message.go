package postgres

import (
	"encoding/hex"
	"encoding/json"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/quota"
)

// The channels of NOTIFY. Every process listens on the first two, and on its own inbox.
const (
	feedChannel  = "tollkeeper_feed"  // keys, accounts or revocations have changed
	nodesChannel = "tollkeeper_nodes" // a node asks all others
	inboxPrefix  = "tollkeeper_node_"
	inboxDigits  = 16
)

// newInbox is a channel for one process.
func newInbox() string {
	var id [inboxDigits / 2]byte
	for i := range id {
		id[i] = byte(rand.Uint32())
	}
	return inboxPrefix + hex.EncodeToString(id[:])
}

// isInbox keeps what others wrote from naming a channel that NOTIFY refuses: that would lose all that is sent with it.
func isInbox(channel string) bool {
	digits, ok := strings.CutPrefix(channel, inboxPrefix)
	_, err := hex.DecodeString(digits)
	return ok && err == nil && len(digits) == inboxDigits
}

// maxPayload is how many bytes a notification may have. PostgreSQL refuses 8,000.
const maxPayload = 7900

// letter is the payload of a notification: what one process tells those that listen on a channel.
type letter struct {
	Inbox    string    `json:"i"` // of the sender
	Messages []message `json:"m"`
}

// What a message is about.
const (
	askRecall = "recall" // give back what you hold of the bucket
	askLend   = "lend"   // lend units of a rate
	reply     = "reply"
	goodbye   = "bye" // the sender is leaving
)

// message is a question of one node, or the answer to one.
type message struct {
	Verb string `json:"v"`
	// Number is the question's. It rises with every question of a process, and an answer repeats it.
	Number uint64       `json:"n,omitempty"`
	From   quota.NodeID `json:"f"`
	To     quota.NodeID `json:"t,omitempty"` // "" for every other node
	Bucket []byte       `json:"b,omitempty"` // Bucket.Key, of any bytes
	Units  int64        `json:"u,omitempty"` // that are asked for or lent
	Limit  int64        `json:"l,omitempty"` // the units of the rate
	Start  int64        `json:"s,omitempty"` // of the rate's period, in Unix nanoseconds
	Wait   int64        `json:"w,omitempty"` // how many milliseconds the sender waits for an answer
}

// rateRequest is what a node that gets the message is asked to lend.
func (m *message) rateRequest(b quota.Bucket) quota.RateRequest {
	return quota.RateRequest{
		Bucket: b,
		Limit:  authz.Limit{Name: b.Limit, Units: m.Limit, Unit: b.Unit, Window: b.Window, Per: b.Per, Count: b.CountKey()},
		Start:  time.Unix(0, m.Start).UTC(),
		Units:  m.Units,
	}
}

// sound reports whether the numbers of a message can be meant.
func (m *message) sound() bool {
	units := func(n int64) bool { return n >= 0 && n <= quota.MaxUnits }
	return units(m.Units) && units(m.Limit) && m.Wait >= 0 && m.Wait <= maxWait.Milliseconds()
}

// opening is how a letter begins; closing ends it.
func opening(inbox string) string { return `{"i":"` + inbox + `","m":[` }

const closing = `]}`

// encode is a message as it stands in a letter. It returns false if it is too long for one.
func encode(m *message) ([]byte, bool) {
	body, err := json.Marshal(m)
	return body, err == nil && len(opening(inboxPrefix))+inboxDigits+len(body)+len(closing) <= maxPayload
}

// pack makes as few letters of messages as it can, and keeps their order.
func pack(inbox string, bodies [][]byte) []string {
	var out []string
	var b strings.Builder
	for _, body := range bodies {
		if b.Len() > 0 && b.Len()+1+len(body)+len(closing) > maxPayload {
			b.WriteString(closing)
			out = append(out, b.String())
			b.Reset()
		}
		if b.Len() == 0 {
			b.WriteString(opening(inbox))
		} else {
			b.WriteByte(',')
		}
		b.Write(body)
	}
	if b.Len() > 0 {
		b.WriteString(closing)
		out = append(out, b.String())
	}
	return out
}

// openLetter reads a letter.
func openLetter(payload string) (l letter, err error) {
	err = json.Unmarshal([]byte(payload), &l)
	return l, err
}
