package rulebook

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/check"
	"github.com/tollkeeper-authz/tollkeeper/authz/config"
	"github.com/tollkeeper-authz/tollkeeper/authz/policy"
	"github.com/tollkeeper-authz/tollkeeper/authz/policy/bundle"
	"github.com/tollkeeper-authz/tollkeeper/authz/telemetry"
)

// recheckEvery is how often Run repeats what may come out differently although no file changed. See Recheck.
const recheckEvery = 30 * time.Second

// Options are what a Book needs. All fields are required.
type Options struct {
	Policy  config.Policy
	DataDir string // of the kept policy
	// Shipped is the table of reasons that the policies' own table extends: see ShippedReasons.
	Shipped map[authz.Reason]authz.ReasonInfo
	Metrics *telemetry.Metrics
	Log     *slog.Logger
	// Use puts rules in force.
	Use func(*check.Rules)
	// Uses tells who is on which plan.
	Uses func(context.Context) (Uses, error)
}

// Book holds the rules in force. Start puts the first ones in force, Run follows the files from then on. The other methods
// may be called concurrently once Start has returned.
type Book struct {
	o       Options
	watcher *bundle.Watcher

	inForce atomic.Pointer[version]
	fault   atomic.Pointer[string]    // why the policies on disk are not in force; nil: they are
	keptAt  atomic.Pointer[time.Time] // when the version in force was saved; nil: it comes from the configured paths
	// removedInUse is set while the policies on disk are refused only because they lack something in use. That ends by
	// itself when the last account leaves the plan.
	removedInUse atomic.Bool
	distrusted   distrusted
	missing      atomic.Pointer[[]string] // plans that do not exist and are used, one text each; nil: not known yet
}

// version is one state of the policies, loaded.
type version struct {
	rules  *rules
	policy *policy.Policy
	files  bundle.Source // a copy in memory, to be saved
}

// New returns a Book without rules.
func New(o Options) *Book { return &Book{o: o} }

// Start puts the configured policies in force. Where they cannot be used, the kept ones take their place. The error says
// that there are none of either.
func (b *Book) Start(ctx context.Context) error {
	fingerprint, err := b.begin(ctx)
	if err != nil {
		return err
	}
	interval := b.o.Policy.ReloadInterval.Duration
	if interval == 0 || len(b.o.Policy.Paths) == 0 {
		interval = 1 << 62 // never: only when poked
	}
	b.watcher = bundle.NewWatcher(source(b.o.Policy), interval, fingerprint, b.reload)
	return nil
}

// Run follows the files until ctx ends. It must be called once, after Start.
func (b *Book) Run(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { b.audit(ctx) })
	wg.Go(func() {
		t := time.NewTicker(recheckEvery)
		defer t.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-t.C:
				b.Recheck(ctx)
			}
		}
	})
	b.watcher.Run(ctx)
}

// Poke makes Run load the policies again at once, changed or not. It does not block.
func (b *Book) Poke() { b.watcher.Poke() }

// Recheck repeats what depends on who is on which plan: it loads refused policies again if they lacked something in use,
// and looks again for accounts without a plan if there were any.
func (b *Book) Recheck(ctx context.Context) {
	if b.removedInUse.Load() {
		b.Poke()
	}
	if b.anyMissing() {
		b.audit(ctx)
	}
}

// reload puts the policies on disk in force, or reports why it does not.
func (b *Book) reload(ctx context.Context, src bundle.Source) {
	removes := false
	next, err := b.load(ctx, src, b.o.Policy)
	if err == nil {
		removes, err = b.checkRemovals(ctx, b.inForce.Load(), next)
	}
	if err != nil {
		if ctx.Err() == nil {
			b.refuse(err)
		}
		return
	}
	b.accept(next)
	b.keep(next)
	if removes || b.anyMissing() { // accounts may have joined or left the plan since it was checked
		b.audit(ctx)
	}
}

func (b *Book) accept(next *version) {
	r, p := next.rules, next.policy
	b.o.Metrics.RoutesLoaded(r.table.Routes())
	b.inForce.Store(next)
	b.distrusted.apply(p) // after Store, so that a difference that comes up now is not missed: see rechecked
	b.o.Use(&r.Rules)
	b.fault.Store(nil)
	b.keptAt.Store(nil)
	b.removedInUse.Store(false)
	b.o.Metrics.PolicyLoaded(p.Revision())
	b.o.Metrics.PolicyKept(false)
	b.o.Log.Info("policy loaded", "revision", p.Revision(), "query", p.Query(), "plans", slices.Sorted(maps.Keys(r.Plans)),
		"routes", len(r.table.Routes()), "memo", p.Caching(), "strict_errors", p.StrictErrors(), "evaluator", p.Evaluator().Name())
	if e := p.Evaluator(); !e.Compiled() && e.Reason != policy.Configured {
		b.o.Log.Warn("OPA's evaluator decides, which takes longer than a compiled program", "reason", e.Reason, "detail", e.Detail)
	}
	for _, w := range r.warnings {
		b.o.Log.Warn("policy has a part that is probably a mistake", "file", w.File, "line", w.Line, "column", w.Column, "code", w.Code, "warning", w.Text)
	}
}

// refuse reports a version that was not put in force. The one in force stays.
func (b *Book) refuse(err error) {
	const message = "policy refused, the one in force stays"
	text := err.Error()
	before := b.fault.Swap(&text)
	var load *bundle.LoadError
	b.removedInUse.Store(errors.As(err, &load) && load.Faults[0].Code == faultRemoved)
	if b.removedInUse.Load() && before != nil && *before == text {
		return // Recheck loaded it again, and nothing has changed
	}
	if load == nil {
		b.o.Metrics.PolicyRefused([]telemetry.Fault{{Code: "data_error"}})
		b.o.Log.Error(message, "error", text)
		return
	}
	faults := make([]telemetry.Fault, len(load.Faults))
	for i, f := range load.Faults {
		faults[i] = telemetry.Fault{File: f.File, Line: strconv.Itoa(f.Line), Column: strconv.Itoa(f.Column), Code: f.Code}
		b.o.Log.Error(message, "file", f.File, "line", f.Line, "column", f.Column, "code", f.Code, "error", f.Text)
	}
	b.o.Metrics.PolicyRefused(faults)
}

// Memo returns the statistics of the verdict cache of the policy in force, zero before Start.
func (b *Book) Memo() telemetry.Memo {
	now := b.inForce.Load()
	if now == nil {
		return telemetry.Memo{}
	}
	s, _ := now.policy.CacheStats()
	return telemetry.Memo(s)
}

// Routes returns how many routes the table in force has, zero before Start.
func (b *Book) Routes() int {
	now := b.inForce.Load()
	if now == nil {
		return 0
	}
	return len(now.rules.table.Routes())
}

// Fault says why the policies on disk are not in force, "" if they are.
func (b *Book) Fault() string {
	if p := b.fault.Load(); p != nil {
		return strings.TrimSpace(*p)
	}
	return ""
}

// KeptAt returns when the policies in force were saved, if they are the kept ones, and zero if they are those on disk.
func (b *Book) KeptAt() time.Time {
	if at := b.keptAt.Load(); at != nil {
		return *at
	}
	return time.Time{}
}
