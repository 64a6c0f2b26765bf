package route

import (
	"slices"
	"strings"
)

// The compiled table. Each node stands for the segments on the way to it. Routes are numbered from the most specific on, so the
// route that applies is the one with the smallest number of those that match.

// none is more than the number of any route.
const none = int(^uint(0) >> 1)

// node is a node of the tree of one host pattern.
type node struct {
	fixed    map[string]*node // by the next segment
	maxFixed int              // length of the longest of these
	open     []openEdge
	ends     []int // routes that match if the path ends here
	rest     []int // routes that match whatever follows
	first    int   // the smallest number in this node and below it
}

// openEdge leads to the nodes after an open segment.
type openEdge struct {
	segment
	next *node
}

// tree finds routes.
type tree struct {
	fold    bool
	methods []methods // by number
	exact   map[string]*node
	below   map[string]*node // by the host pattern without its star: .example.com
	any     *node            // routes of all hosts
}

func newTree(entries []*entry, fold bool) *tree {
	t := &tree{fold: fold, exact: make(map[string]*node), below: make(map[string]*node), any: newNode()}
	for i, e := range entries {
		t.methods = append(t.methods, e.methods)
		switch {
		case e.pattern == nil: // only its name chooses it
		case e.hosts == nil:
			t.any.add(e.pattern, i)
		default:
			for _, h := range e.hosts {
				t.rootOf(h).add(e.pattern, i)
			}
		}
	}
	return t
}

func (t *tree) rootOf(host string) *node {
	roots := t.exact
	if strings.HasPrefix(host, "*.") {
		roots, host = t.below, host[1:]
	}
	if roots[host] == nil {
		roots[host] = newNode()
	}
	return roots[host]
}

func newNode() *node { return &node{fixed: make(map[string]*node), first: none} }

func (n *node) add(p *pattern, number int) {
	n.first = min(n.first, number)
	for i := range p.segments {
		n = n.after(&p.segments[i])
		n.first = min(n.first, number)
	}
	if p.rest {
		n.rest = append(n.rest, number)
	} else {
		n.ends = append(n.ends, number)
	}
}

// after returns the node that follows a segment, which it adds if it is missing.
func (n *node) after(s *segment) *node {
	if !s.open {
		if n.fixed[s.before] == nil {
			n.fixed[s.before] = newNode()
			n.maxFixed = max(n.maxFixed, len(s.before))
		}
		return n.fixed[s.before]
	}
	i := slices.IndexFunc(n.open, func(e openEdge) bool { return e.before == s.before && e.after == s.after })
	if i < 0 {
		i = len(n.open)
		n.open = append(n.open, openEdge{segment{before: s.before, after: s.after, open: true}, newNode()})
	}
	return n.open[i].next
}

// find returns the number of the route that applies, none if there is none. The host has the form that bareHost returns.
func (t *tree) find(host, method string, path []string) int {
	s := search{tree: t, method: method, best: none}
	s.in(t.any, path)
	if len(t.exact) == 0 && len(t.below) == 0 {
		return s.best
	}
	if !isFolded(host) {
		host = strings.ToLower(host)
	}
	if n := t.exact[host]; n != nil {
		s.in(n, path)
	}
	if len(t.below) > 0 {
		for i := 1; i < len(host); i++ {
			if host[i] == '.' {
				if n := t.below[host[i:]]; n != nil {
					s.in(n, path)
				}
			}
		}
	}
	return s.best
}

// search is one walk through the trees. It visits a node at most once.
type search struct {
	*tree
	method string
	best   int
}

func (s *search) in(n *node, path []string) {
	if n.first >= s.best {
		return
	}
	s.take(n.rest)
	if len(path) == 0 {
		s.take(n.ends)
		return
	}
	text := path[0]
	if len(n.fixed) > 0 {
		if next := s.fixed(n, text); next != nil {
			s.in(next, path[1:])
		}
	}
	for i := range n.open {
		if e := &n.open[i]; e.next.first < s.best && s.matches(&e.segment, text) {
			s.in(e.next, path[1:])
		}
	}
}

// take takes the first route that has the method, if it is better than the best so far.
func (s *search) take(numbers []int) {
	for _, i := range numbers {
		if i >= s.best {
			return
		}
		if s.methods[i].has(s.method) {
			s.best = i
			return
		}
	}
}

func (s *search) fixed(n *node, text string) *node {
	if !s.fold || isFolded(text) {
		return n.fixed[text]
	}
	if len(text) > 3*n.maxFixed { // folding makes a letter at most three times as short
		return nil
	}
	var room [128]byte
	return n.fixed[string(appendFolded(room[:0], text))]
}

func (s *search) matches(e *segment, text string) bool {
	if s.fold && e.before+e.after != "" && !isFolded(text) {
		text = folded(text)
	}
	return e.matches(text)
}
