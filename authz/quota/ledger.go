package quota

import (
	"context"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// Bucket names one count: one limit of one holder. The number of units that the limit grants is not part of the name, so a
// holder who is moved to a smaller plan keeps what was used. The unit and the periods are: two limits of one name that differ
// in these have a count each.
type Bucket struct {
	Per    authz.Per    `json:"per"`
	Holder string       `json:"holder"` // the key's lineage, or the account
	Limit  string       `json:"limit"`  // the limit's name
	Unit   string       `json:"unit,omitempty"`
	Window authz.Window `json:"window,omitempty"`
	Zone   string       `json:"zone,omitempty"`   // of days and months, "" for UTC
	Anchor int          `json:"anchor,omitempty"` // of months: days after the first on which they begin
}

// HolderID names the record in which the bucket's book is kept.
func (b Bucket) HolderID() HolderID { return HolderID{b.Per, b.Holder} }

// NodeID names one run of one process. A process that starts again is another node, so that what it held before it
// died is never mistaken for what it holds now.
type NodeID string

// HolderID names the record of one holder. The books of all its limits are kept together, so that a request costs one verb however
// many limits its plan has.
type HolderID struct {
	Per    authz.Per `json:"per"`
	Holder string    `json:"holder"` // the key's lineage, or the account
}

// LeaseRequest reports what a node spent of a holder's limits, gives units back and asks for more: any of the three, for any
// of the limits, at once.
type LeaseRequest struct {
	Node NodeID
	// Seq makes the request safe to repeat. For each node and holder it rises with every request that is not a repetition.
	Seq uint64
	// Last is the Seq of the node's last request about the holder that was answered and took place, 0 for none. A ledger that does
	// not know of it has lost commits.
	Last   uint64
	Holder HolderID
	Parts  []LeasePart // at least one, each of another count
	// Restates says that there is a part for every count of the holder of which the node knows, and that each says with Known
	// what the last answer said. A ledger that has lost commits takes it over.
	Restates bool
}

// LeasePart is what a LeaseRequest says about one limit.
type LeasePart struct {
	Count string // Bucket.CountKey
	Limit authz.Limit
	// Held is the period to which Spent and Back belong, zero if both are 0 or the limit is prepaid.
	Held Period
	// Spent is what was spent of the lease since the last request that was answered.
	Spent int64
	// Back is how many of the units that the node holds it gives back.
	Back int64
	// Want is how many units to lease. Units still held are kept.
	Want int64
	// Known is what the last answer said of the node's units in the period Held: Lease.Held and Lease.Reported.
	Known Holding
}

// Answer is what a LeaseRequest did. If Err is not nil, it did nothing.
type Answer struct {
	Parts []Lease // in the order of the request's
	Err   error   // of KindInvalid or KindConflict
	// Lost says that the ledger does not know of the request that Last names. Unless the request restates, Err is of KindConflict.
	Lost bool
}

// Lease is the answer to a LeasePart.
type Lease struct {
	// Period is the one that is running by the ledger's clock. If the node held units of another period, those are gone.
	Period Period `json:"period"`
	// Granted is how many units were added to the lease, 0 to Want.
	Granted int64 `json:"granted"`
	// Held is what the node holds now, Granted included.
	Held int64 `json:"held"`
	// Reported is what the node has reported as spent, less what was refunded, since it first held units of the period.
	Reported int64 `json:"reported,omitempty"`
	// Withheld says that the ledger may have lost commits, and grants nothing to anybody until the nodes have told what they hold.
	Withheld bool `json:"withheld,omitempty"`
	// Counted is the units that count against the limit, of all nodes: those that were granted and did not come back, less
	// those that were credited or forgiven. Under a limit of n units the ledger could still grant n - Counted.
	Counted int64 `json:"counted"`
	// Credited is what was credited on top of the limit's units.
	Credited int64 `json:"credited,omitempty"`
	// Elsewhere is the units that other nodes hold and could give back. Nodes is how many nodes share the holder: those whose
	// session runs and that hold units or asked within SessionTerm, the asking one included. A node fits the size of its leases
	// to both.
	Elsewhere int64 `json:"elsewhere,omitempty"`
	Nodes     int64 `json:"nodes,omitempty"` // at least 1
}

// SettleRequest corrects the charge of a request once its real cost is known.
type SettleRequest struct {
	// ID is the reservation's. Settling an id again changes nothing and returns the first answer; ids are
	// remembered for at least SettleMemory.
	ID     string
	Node   NodeID // that reserved the units
	Bucket Bucket
	Limit  authz.Limit
	Period Period
	// Estimate is the units that were reserved, and Actual the units that the request really cost.
	Estimate, Actual int64
}

// SessionTerm is how long a node may serve from its leases before it has to renew its session.
const SessionTerm = time.Minute

// MaxUnits is the largest count. Every sum of two fits into 64 bits, and every number survives JSON.
const MaxUnits = int64(1) << 53

// SettleMemory is how long a ledger remembers which reservations were settled.
const SettleMemory = time.Hour

// Settlement is what a SettleRequest did.
type Settlement struct {
	Charged  int64 `json:"charged,omitempty"`  // units charged on top of the estimate
	Refunded int64 `json:"refunded,omitempty"` // units given back
	// Overage is the units that the request cost beyond everything that was left. It is recorded and never granted.
	Overage int64 `json:"excess,omitempty"`
}

// CreditRequest adds units to the balance of a prepaid limit, or to the running period of any other quota.
type CreditRequest struct {
	// ID is the idempotency key, unique in the whole ledger and remembered for good. The same ID with the same
	// bucket and units changes nothing; with others it is refused with KindConflict.
	ID     string
	Bucket Bucket
	Limit  authz.Limit
	Units  int64 // above 0
	Note   string
}

// ResetRequest forgives everything that was spent in the running period.
type ResetRequest struct {
	ID     string // as in CreditRequest, from the same name space
	Bucket Bucket
	Limit  authz.Limit // WindowNone is refused with KindInvalid: prepaid credits were paid for, and are credited
}

// ReleaseRequest decides on units that a node held and had not reported as spent when its session ended: Units of them come
// back, and the rest counts as spent.
type ReleaseRequest struct {
	ID     string // as in CreditRequest, from the same name space
	Bucket Bucket
	Limit  authz.Limit
	Node   NodeID
	Units  int64 // 0 to what is stranded
}

// Stranding is prepaid units that are stranded in one bucket with one node.
type Stranding struct {
	Bucket Bucket `json:"bucket"`
	Node   NodeID `json:"node"`
	Units  int64  `json:"units"`
	// Reported is what the node had reported as spent of this bucket, less what was refunded. Granted to it were Units and
	// Reported, and nothing else: who knows what the node really charged knows what it did not.
	Reported int64 `json:"reported"`
}

// Balance is the state of one bucket. For every Balance
//
//	Granted = Spent + Returned + Stranded + the sum of Outstanding
//	Granted - Returned <= Allowance + Forgiven
//
// Spent may be below 0 for a while, if a refund was booked before the node reported the units as spent. The second line does
// not hold after a plan was lowered: units that were spent before stay spent.
type Balance struct {
	Bucket      Bucket           `json:"bucket"`
	Period      Period           `json:"period"`
	Allowance   int64            `json:"allowance"`          // the limit's units and credits
	Forgiven    int64            `json:"forgiven,omitempty"` // spent units that a reset gave back
	Granted     int64            `json:"granted"`
	Spent       int64            `json:"spent"`
	Returned    int64            `json:"returned"`
	Outstanding map[NodeID]int64 `json:"outstanding,omitempty"`
	// Stranded is the units of nodes whose session ended before they gave them back. They stay charged.
	Stranded int64 `json:"stranded,omitempty"`
	Overage  int64 `json:"excess,omitempty"`
	Free     int64 `json:"free"` // could be granted now
}

// Ledger is the durable record of quotas, which several nodes may share. Each verb is atomic: it takes place whole or not at all,
// and is durable when it is answered. In a call of Lease, each request is a verb of its own. The ledger's clock decides which period is running, so
// that nodes whose clocks differ never count in two periods at once. Package quotatest holds every store to this contract.
//
// Lease never grants more than Allowance + Forgiven - (Granted - Returned). A request that is repeated with the same Seq is
// granted the same again and changes nothing: if its period is still running it learns Granted, which may by now be less if the
// units were given back for a node that was thought dead, and for the rest what is true now. A request that is repeated with the
// same ID gets the first answer. A request with a lower Seq than the last is a late duplicate and is refused with KindConflict.
// Reports for the period before the running one are booked there. Reports for older periods are dropped.
//
// A ledger that may have lost commits (another server took over, or a copy was restored) withholds: it books reports and returns,
// and grants nothing, until every node whose session ran has restated what it holds and what it spent, and unless it knows that
// acknowledged commits cannot be lost, for at least SessionTerm: a node of which it does not know serves no longer than that. See Roll.
//
// A limit without a window, a limit per second or minute (that is a rate, and no ledger counts it), units outside of 0 to MaxUnits,
// and empty IDs are KindInvalid. After KindInvalid and KindConflict nothing has changed. After KindUnavailable it is unspecified
// whether the verb took place: the caller repeats it with the same Seq or ID. All methods may be called concurrently.
type Ledger interface {
	Members

	// Lease carries out requests of any holders, several at the price of one, and answers in their order. The error is of
	// KindUnavailable, and holds for all of them.
	Lease(ctx context.Context, rs []LeaseRequest) ([]Answer, error)
	Settle(ctx context.Context, r SettleRequest) (Settlement, error)
	Credit(ctx context.Context, r CreditRequest) (Balance, error)
	Reset(ctx context.Context, r ResetRequest) (Balance, error)
	// Release is refused with KindConflict while the node's session runs or if less is stranded.
	Release(ctx context.Context, r ReleaseRequest) (Balance, error)
	Balance(ctx context.Context, b Bucket, l authz.Limit) (Balance, error)

	// Stranded calls each for the prepaid units that are stranded, until it returns false or ctx ends. The order is the
	// ledger's own. each must not call the ledger.
	Stranded(ctx context.Context, each func(Stranding) bool) error
	// Forget deletes the records on which nothing depends any more (Record.Forgettable), so that callers who came once do not
	// fill the disk, and returns how many. It MAY stop when ctx ends, and goes on where it stopped at the next call.
	Forget(ctx context.Context) (int, error)
}
