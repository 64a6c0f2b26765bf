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
type Roll struct {
	Number  uint64            `json:"number"` // of sessions and views, one series
	Members map[NodeID]Member `json:"members"`
}

// Member is one node of a Roll.
type Member struct {
	Session uint64    `json:"session"` // the view with which it joined
	Applied uint64    `json:"applied"` // the last view that it goes by
	Until   time.Time `json:"until"`
}

// Renew begins or renews the session of a node.
func (r *Roll) Renew(node NodeID, applied uint64, now time.Time) Session {
	r.expire(now)
	m, ok := r.Members[node]
	if !ok {
		r.Number++
		m = Member{Session: r.Number}
		applied = 0 // it went by a view of another session
	}
	m.Applied, m.Until = max(m.Applied, min(applied, r.Number)), now.Add(SessionTerm)
	if r.Members == nil {
		r.Members = make(map[NodeID]Member)
	}
	r.Members[node] = m
	return Session{Number: m.Session, Term: SessionTerm, View: r.viewOf(node, m)}
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

// expire removes the nodes that did not renew. A session that runs longer from now was granted by a wrong clock.
func (r *Roll) expire(now time.Time) {
	for node, m := range r.Members {
		switch last := now.Add(SessionTerm); {
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
