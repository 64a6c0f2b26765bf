package quota

import (
	"context"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// Members is the nodes that share a ledger. Membership costs no write for each bucket: a node renews one session, and all its
// leases are good for as long as that runs.
type Members interface {
	// Join makes a node known, so that others can ask it for units. It is called once, before Renew. leave ends the session at
	// once: what the node still holds then is stranded.
	Join(node NodeID, p Peer) (leave func())
	// Renew begins a session or makes it run longer.
	Renew(ctx context.Context, node NodeID, s Standing) (Session, error)
	// Recall asks every other node for what it holds of the bucket. It returns when each has given it back, or when ctx
	// ends. A node that cannot be reached keeps what it holds, so the caller MUST ask the ledger what came back.
	Recall(ctx context.Context, node NodeID, b Bucket)
	// Borrow asks the other nodes for units of a rate, one after the other until it has enough, and returns what it got. An
	// answer that is lost is units that nobody may use until the period ends.
	Borrow(ctx context.Context, node NodeID, r RateRequest) int64
}

// Peer is what a node does for the others. Its methods may be called concurrently.
type Peer interface {
	// GiveBack returns the units that the node holds of the bucket to the ledger.
	GiveBack(ctx context.Context, b Bucket)
	// Lend gives up units of the node's own share of a rate, 0 to r.Units, and returns how many.
	Lend(r RateRequest) int64
}

// RateRequest asks for units of a rate in the period that runs. A node for which another one runs lends none.
type RateRequest struct {
	Bucket Bucket
	Limit  authz.Limit
	Start  time.Time // of the period
	Units  int64
}

// Standing is what a node tells when it renews its session.
type Standing struct {
	Applied  uint64 // the number of the last View that it goes by, 0 for none
	Restated uint64 // the number of the last Session in which it restated every holder of which it holds or spent anything, 0 for none
	// Replaces is a node that is known to be dead, "" for none: the process before in the same place. Its session ends at once, so that
	// its share of the rates is free.
	Replaces NodeID
}

// Session is a node's membership.
type Session struct {
	// Number rises when a session had ended before it was renewed, and when the ledger may have lost commits. The ledger may have
	// decided on what the node held, or may not know of it, so the node MUST ask again before it serves from a lease of an earlier
	// session. It MUST restate every holder (LeaseRequest.Restates), and says so in Standing.
	Number uint64
	// Term is how long the session runs. The node MUST NOT serve later than Term after it *called* Renew.
	Term time.Duration
	View View
}

// View is the membership that a node has to go by when it works out its share of the rates.
type View struct {
	Number uint64 // rises when nodes join, leave, or do not renew
	Nodes  int64  // that share; 0 if the node has just joined and has to wait until the others make room
	Rank   int64  // the node's own place among them, from 0
}

// Share is how many of a rate's units the node may use in a period. The shares of all nodes that go by a View of one number add
// up to the units, and a View with more nodes makes no share larger: nodes that learn of another node at different times never
// have more between them than there is.
func (v View) Share(units int64) int64 {
	switch v.Nodes {
	case 0:
		return 0
	case 1:
		return units
	}
	share := units / v.Nodes
	if v.Rank < units%v.Nodes {
		share++
	}
	return share
}

// IsRate reports whether the limit is a rate: it counts per second or minute, in memory, by each node's share. All other
// limits are quotas, which a Ledger counts.
func IsRate(l *authz.Limit) bool {
	return l.Window == authz.WindowSecond || l.Window == authz.WindowMinute
}
