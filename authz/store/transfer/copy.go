package transfer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// Info is what a source says about itself.
type Info struct {
	// Store names the store, and stays the same. State changes whenever something is written to it.
	Store, State string
	// Pepper is the fingerprint of the pepper of the keys.
	Pepper string
	// Revision is the highest revision of a revocation that was ever given out.
	Revision uint64
}

// Source is a store to read. While it is open nothing else writes to it.
type Source interface {
	Info() Info
	// Read passes entries of a section to each, in the source's own order, from a cursor that it returned: nil is the beginning.
	// It returns the cursor to go on from, nil at the end, and passes about limit entries in between. An error of each ends it and is
	// returned. each may keep the entry.
	Read(ctx context.Context, s Section, from []byte, limit int, each func(*Entry) error) (next []byte, err error)
}

// Progress is how far a copy has come. The zero Progress is at the beginning.
type Progress struct {
	Store string `json:"store"` // Info of the source
	State string `json:"state"`
	// Section is the one that is being copied, "" at the beginning, and From the cursor in it. Written is set when all are.
	Section Section           `json:"section,omitempty"`
	From    []byte            `json:"from,omitempty"`
	Written bool              `json:"written,omitempty"`
	Copied  map[Section]int64 `json:"copied,omitempty"` // entries
}

// GoesOn reports whether a copy from a source goes on from here, or begins again: the source has changed, or the copy was not the same
// as the source. The error is of KindConflict if this is the progress of a copy of another store.
func (p *Progress) GoesOn(from Info) (bool, error) {
	if p.Store != "" && p.Store != from.Store {
		return false, authz.Errorf(authz.KindConflict, "it is the unfinished copy of another store (%s, not %s): choose an empty target", p.Store, from.Store)
	}
	return p.Store == from.Store && p.State == from.State, nil
}

// Target is a store to write. Nothing else uses it meanwhile, and nobody serves it until Finish.
type Target interface {
	// Begin returns the progress of the copy that was begun from this source in this state. If there is none, or one from an
	// earlier state of the same source, it makes the target an empty one that is being filled. A target with any other content is
	// refused with KindConflict.
	Begin(ctx context.Context, from Info) (Progress, error)
	// Write writes entries of one section, and the progress after them, both or neither.
	Write(ctx context.Context, entries []Entry, p Progress) error
	// Complete makes what is derived from the entries. It may be called again after it was interrupted.
	Complete(ctx context.Context) error
	// Read is Source.Read, once everything is complete.
	Read(ctx context.Context, s Section, from []byte, limit int, each func(*Entry) error) (next []byte, err error)
	// Finish makes the target a store that can be served.
	Finish(ctx context.Context) error
}

// batch is how many entries are usually read at a time.
const batch = 5000

// Options are the arguments of Copy besides the stores.
type Options struct {
	// Report is called after each batch, and when something begins that takes its time. Nil reports nothing.
	Report func(Report)
	// Every is how much time lies between two reports of a section; 0: each batch is reported.
	Every time.Duration
	// Batch is how many entries are read and written at a time; 0: 5000.
	Batch int
}

// Report is a sign of life.
type Report struct {
	Doing   string  // copy, index or verify
	Section Section // that is copied
	Entries int64   // of the section, copied so far
	Resumed bool    // an earlier run copied some
}

// Result says what a copy copied.
type Result struct {
	Sums    map[Section]*Sum
	Resumed bool
}

// Copy copies everything from a source, and verifies it. If it is interrupted at any moment, the next Copy goes on.
//
// The error is of KindConflict if the target has other content, or is not the same as the source in the end: it is begun from
// the beginning then the next time.
func Copy(ctx context.Context, from Source, to Target, o Options) (Result, error) {
	if o.Report == nil {
		o.Report = func(Report) {}
	}
	o.Batch = cmp.Or(o.Batch, batch)
	p, err := to.Begin(ctx, from.Info())
	if err != nil {
		return Result{}, err
	}
	r := Result{Resumed: p.Section != ""}
	if !p.Written {
		if err := write(ctx, from, to, p, o); err != nil {
			return r, err
		}
	}
	o.Report(Report{Doing: "index"})
	if err := to.Complete(ctx); err != nil {
		return r, err
	}
	o.Report(Report{Doing: "verify"})
	if r.Sums, err = verify(ctx, from, to); err != nil {
		return r, err
	}
	return r, to.Finish(ctx)
}

// write copies what is missing.
func write(ctx context.Context, from Source, to Target, p Progress, o Options) error {
	resumed := p.Section != ""
	if p.Copied == nil {
		p.Copied = make(map[Section]int64)
	}
	for _, s := range Sections() {
		if p.Section != "" && p.Section != s {
			continue // done
		}
		p.Section = s
		reported := time.Now()
		for more := true; more; {
			var entries []Entry
			next, err := from.Read(ctx, s, p.From, o.Batch, func(e *Entry) error {
				entries = append(entries, *e)
				return nil
			})
			if err != nil {
				return fmt.Errorf("reading %s: %w", s, err)
			}
			p.From, more = next, next != nil
			p.Copied[s] += int64(len(entries))
			if !more {
				p.Section, p.Written = after(s)
			}
			if err := to.Write(ctx, entries, p); err != nil {
				return fmt.Errorf("writing %s: %w", s, err)
			}
			if !more || time.Since(reported) >= o.Every {
				reported = time.Now()
				o.Report(Report{"copy", s, p.Copied[s], resumed})
			}
		}
	}
	return nil
}

// after is the section after s, or that s is the last.
func after(s Section) (next Section, last bool) {
	all := Sections()
	for i := range all[:len(all)-1] {
		if all[i] == s {
			return all[i+1], false
		}
	}
	return s, true
}

// verify reads both ends at the same time and compares them.
func verify(ctx context.Context, from Source, to Target) (map[Section]*Sum, error) {
	sums := make(map[Section]*Sum)
	for _, s := range Sections() {
		var a, b Sum
		g, both := errgroup.WithContext(ctx)
		g.Go(func() error { return sum(both, from.Read, s, &a) })
		g.Go(func() error { return sum(both, to.Read, s, &b) })
		if err := g.Wait(); err != nil {
			return nil, fmt.Errorf("verifying %s: %w", s, err)
		}
		if !a.Same(&b) {
			err := authz.Errorf(authz.KindConflict, "the copy is not the same as its source: %s has %d entries with hash %s, and the source %d with hash %s",
				s, b.Count, b.Hash(), a.Count, a.Hash())
			// The next run must not trust what is there.
			return nil, errors.Join(err, to.Write(ctx, nil, Progress{Store: from.Info().Store}))
		}
		sums[s] = &a
	}
	return sums, nil
}

type reading func(ctx context.Context, s Section, from []byte, limit int, each func(*Entry) error) (next []byte, err error)

func sum(ctx context.Context, read reading, s Section, out *Sum) error {
	var from []byte
	for {
		next, err := read(ctx, s, from, batch, func(e *Entry) error {
			out.Add(e)
			return nil
		})
		if err != nil || next == nil {
			return err
		}
		from = next
	}
}

// SumOf is the sum of a section.
func SumOf(ctx context.Context, from Source, s Section) (*Sum, error) {
	out := &Sum{}
	return out, sum(ctx, from.Read, s, out)
}
