package quota

import "github.com/tollkeeper-authz/tollkeeper/authz"

// Page is the count of one period. The fields are those of Balance. Always
//
//	Granted = Spent + Returned + the sum of Held
//	Granted - Returned <= Ceiling + Forgiven
type Page struct {
	Period Period `json:"period"`
	// Was is the period of the page before retime changed it. Nodes still report units of that period, and the clock may
	// reach it again.
	Was      Period             `json:"was,omitzero"`
	Credited int64              `json:"credited,omitempty"`
	Forgiven int64              `json:"forgiven,omitempty"`
	Granted  int64              `json:"granted"`
	Spent    int64              `json:"spent"`
	Returned int64              `json:"returned,omitempty"`
	Overage  int64              `json:"excess,omitempty"`
	Held     map[NodeID]Holding `json:"held,omitempty"`
	// Ceiling is the largest allowance under which units were granted. A plan that is lowered later does not lower it.
	Ceiling int64 `json:"ceiling,omitempty"`
}

// Holding is what one node holds, and what it has spent.
type Holding struct {
	Units int64 `json:"units"`           // not reported as spent; 0 only while the node is alive
	Spent int64 `json:"spent,omitempty"` // reported as spent since the node first held units of the page, less refunds
}

// grant counts units as handed out. Only the difference of Granted and Returned matters, so both are lowered before years of
// leasing and returning a very large limit could overflow them.
func (p *Page) grant(units int64, l *authz.Limit) {
	if units > 0 {
		p.Ceiling = max(p.Ceiling, p.allowance(l))
	}
	p.Granted += units
	if p.Granted > MaxUnits {
		p.Granted, p.Returned = p.Granted-p.Returned, 0
	}
}

// giveBack returns units that are neither held nor spent any more. Never more comes back than went out: units that a
// settlement refunded before the node reported them as spent do not come back a second time. Refunded units are no longer
// forgiven.
func (p *Page) giveBack(units int64) {
	back := min(units, p.Granted-p.Returned)
	p.Returned += back
	p.Spent += units - back
	p.Forgiven = min(p.Forgiven, p.Granted-p.Returned)
}

// addOverage records units that were used beyond everything that was granted.
func (p *Page) addOverage(units int64) { p.Overage = min(p.Overage+units, MaxUnits) }

func (p *Page) allowance(l *authz.Limit) int64 { return l.Units + p.Credited }

// counted is what counts against the limit's units. It is below 0 if more was credited than granted.
func (p *Page) counted() int64 { return p.Granted - p.Returned - p.Forgiven - p.Credited }

// free is what can still be granted. It is 0 if a plan was lowered below what is granted.
func (p *Page) free(l *authz.Limit) int64 { return max(0, l.Units-p.counted()) }

// hold adds units to a node's holding, or takes them away if below 0.
func (p *Page) hold(node NodeID, units int64) {
	if units == 0 {
		return
	}
	if p.Held == nil {
		p.Held = make(map[NodeID]Holding)
	}
	h := p.Held[node]
	h.Units += units
	p.Held[node] = h
}

// restate sets what a node holds and has reported to what the node knows, after the ledger lost it. It may be more than the limit
// grants, if credits were lost.
func (p *Page) restate(node NodeID, known Holding) {
	old := p.Held[node]
	if more := known.Units + known.Spent - old.Units - old.Spent; more > 0 {
		p.Granted += more
		p.Ceiling = max(p.Ceiling, p.Granted-p.Returned-p.Forgiven)
	} else {
		p.giveBack(-more)
	}
	p.Spent += known.Spent - old.Spent
	if p.Held == nil {
		p.Held = make(map[NodeID]Holding)
	}
	p.Held[node] = known
}

// forget removes the holdings of nodes that are gone and left nothing behind.
func (p *Page) forget(at Instant) {
	for node, h := range p.Held {
		if h.Units == 0 && !at.Alive(node) {
			delete(p.Held, node)
		}
	}
}

// lapse gives back what nodes hold that are gone, if the limit says so.
func (p *Page) lapse(l *authz.Limit, at Instant) {
	if l.Window != authz.WindowNone || !l.RefundOnCrash {
		return
	}
	for node, h := range p.Held {
		if !at.Alive(node) {
			delete(p.Held, node)
			p.giveBack(h.Units)
		}
	}
}

// elsewhere is the units that other nodes hold and can still give back.
func (p *Page) elsewhere(node NodeID, at Instant) int64 {
	var n int64
	for other, h := range p.Held {
		if other != node && at.Alive(other) {
			n += h.Units
		}
	}
	return n
}
