package quota

import (
	"slices"
	"time"
)

// Roll is the arithmetic of Members: who has a session, and who may use which share of the rates. Like Book it does no I/O,
// reads no clock and takes no lock. The zero Roll has no members.
//
// A node that joins gets a share when every node that was there before goes by a View with it, or has no session any more.
// Until then those nodes may use more than the share that is left to them.
//
// When the ledger may have lost commits, all sessions get a new number, and the ledger withholds until all members have restated
// what they hold. Those of which the ledger lost the membership itself serve for a term at most, so it also waits for that,
// unless its commits cannot be lost.
type Roll struct {
	Number  uint64            `json:"number"` // of sessions and views, one series
	Members map[NodeID]Member `json:"members"`

	Incarnation string    `json:"incarnation,omitempty"` // of the ledger, "" if it has only one
	Safe        bool      `json:"safe,omitempty"`        // in this incarnation, every commit is kept by whoever takes over
	Doubt       uint64    `json:"doubt,omitempty"`       // the Number since which sessions count; 0: commits were never in doubt
	Until       time.Time `json:"until,omitzero"`        // the ledger withholds until then, if it was not safe
}

// Member is one node of a Roll.
type Member struct {
	Session uint64    `json:"session"` // the view with which it joined
	Applied uint64    `json:"applied"` // the last view that it goes by
	Until   time.Time `json:"until"`
	// Restated is the last session in which it has restated what it holds.
	Restated uint64 `json:"restated,omitempty"`
}

// Renew begins or renews the session of a node.
func (r *Roll) Renew(node NodeID, s Standing, now time.Time) Session {
	r.Expire(now)
	if s.Replaces != node {
		r.Leave(s.Replaces)
	}
	m, ok := r.Members[node]
	if !ok {
		r.Number++
		m = Member{Session: r.Number}
		if s.Applied == 0 && s.Restated == 0 { // it is new, and holds nothing
			m.Restated = r.Number
		}
		s.Applied = 0 // it went by a view of another session
	}
	m.Applied, m.Until = max(m.Applied, min(s.Applied, r.Number)), now.Add(SessionTerm)
	m.Restated = max(m.Restated, min(s.Restated, r.Number))
	if r.Members == nil {
		r.Members = make(map[NodeID]Member)
	}
	r.Members[node] = m
	return Session{Number: max(m.Session, r.Doubt), Term: SessionTerm, View: r.viewOf(node, m)}
}

// Notice tells which incarnation of the ledger answers, and whether every commit is kept by whoever takes over from it. It reports
// whether another one answered before: then commits may have been lost.
func (r *Roll) Notice(incarnation string, safe bool, now time.Time) (changed bool) {
	if changed = r.Incarnation != incarnation && (r.Incarnation != "" || len(r.Members) > 0); changed {
		r.doubt(now)
	} else if !r.Withholds(now) {
		r.Safe, r.Until = safe, time.Time{} // else a primary that has no standby yet would withhold what the one before gave it safely
	}
	r.Incarnation = incarnation
	return changed
}

// Lost notes that commits were lost.
func (r *Roll) Lost(now time.Time) {
	if r.Safe = false; !r.Withholds(now) {
		r.doubt(now)
	}
}

// doubt has the ledger withhold. Safe stays what it was: it tells of the commits that may have been lost. Nodes may know of higher
// numbers that were lost with these, so the next one is made from the time.
func (r *Roll) doubt(now time.Time) {
	r.Number = max(r.Number+1, uint64(max(0, now.UnixMilli())))
	r.Doubt, r.Until = r.Number, now.Add(SessionTerm)
}

// Withholds reports whether the ledger may grant nothing, because it may have lost commits that nodes go by.
func (r *Roll) Withholds(now time.Time) bool {
	if r.Doubt == 0 {
		return false
	}
	if !r.Safe && now.Before(r.Until) {
		return true
	}
	for _, m := range r.Members {
		if m.Restated < r.Doubt && m.Until.After(now) {
			return true
		}
	}
	return false
}

// Leave ends the session of a node.
func (r *Roll) Leave(node NodeID) {
	if _, ok := r.Members[node]; ok {
		delete(r.Members, node)
		r.Number++
	}
}

// Alive reports whether the session of a node runs.
func (r *Roll) Alive(node NodeID, now time.Time) bool {
	m, ok := r.Members[node]
	return ok && m.Until.After(now)
}

// Overdue reports whether there is a node that did not renew and was not removed yet. A store that reads a Roll while another
// transaction may renew that node removes it first: only what is committed says that it is gone.
func (r *Roll) Overdue(now time.Time) bool {
	for _, m := range r.Members {
		if !m.Until.After(now) {
			return true
		}
	}
	return false
}

// Expire removes the nodes that did not renew. What runs longer than a term from now was begun by a wrong clock.
func (r *Roll) Expire(now time.Time) {
	last := now.Add(SessionTerm)
	if r.Until.After(last) {
		r.Until = last
	}
	for node, m := range r.Members {
		switch {
		case !m.Until.After(now):
			r.Leave(node)
		case m.Until.After(last):
			m.Until = last
			r.Members[node] = m
		}
	}
}

// viewOf is the view that a node has to go by.
func (r *Roll) viewOf(node NodeID, m Member) View {
	v := View{Number: r.Number}
	names := make([]NodeID, 0, len(r.Members))
	for name, other := range r.Members {
		if other.Session < m.Session && other.Applied < m.Session {
			return v // it may still use what is to be this node's share
		}
		names = append(names, name)
	}
	slices.Sort(names)
	v.Nodes, v.Rank = int64(len(names)), int64(slices.Index(names, node))
	return v
}
