package server

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/admin"
	"github.com/tollkeeper-authz/tollkeeper/authz/apikey"
	"github.com/tollkeeper-authz/tollkeeper/authz/check"
	"github.com/tollkeeper-authz/tollkeeper/authz/config"
	"github.com/tollkeeper-authz/tollkeeper/authz/policy"
	"github.com/tollkeeper-authz/tollkeeper/authz/store/bolt"
)

// faultRemoved is the code of a fault of policies that take away what is used.
const faultRemoved = "removed_in_use"

// planned is where accounts, and keys with plans of their own, are found: a store, or a file that no server has.
type planned interface {
	OnPlans(ctx context.Context, each func(*apikey.Account, *apikey.Key) error) error
}

// examples is how many of those on a plan are named.
const examples = 3

// planUses counts who is on which plan. Keys that can never be good again do not count, or their plans could never be
// removed. Revoked says which keys are revoked, nil where that is not known.
func planUses(ctx context.Context, p planned, now time.Time, revoked func(*apikey.Key) bool) (map[string]*admin.PlanUse, error) {
	uses := make(map[string]*admin.PlanUse)
	err := p.OnPlans(ctx, func(a *apikey.Account, k *apikey.Key) error {
		switch {
		case a != nil && a.Plan != "":
			u := useOf(uses, a.Plan)
			u.Accounts++
			u.AccountIDs = addExample(u.AccountIDs, a.ID)
		case k != nil && !isOver(k, now) && (revoked == nil || !revoked(k)):
			u := useOf(uses, k.Plan)
			u.Keys++
			u.KeyIDs = addExample(u.KeyIDs, k.ID)
		}
		return nil
	})
	return uses, err
}

func isOver(k *apikey.Key, now time.Time) bool {
	status := k.StatusAt(now)
	return status == authz.KeyExpired || status == authz.KeyRotated
}

func useOf(uses map[string]*admin.PlanUse, plan string) *admin.PlanUse {
	u := uses[plan]
	if u == nil {
		u = &admin.PlanUse{Name: plan}
		uses[plan] = u
	}
	return u
}

// addExample keeps the first few ids in their order, so that the same fault has the same text each time.
func addExample(list []string, id string) []string {
	if i, found := slices.BinarySearch(list, id); !found && i < examples {
		list = slices.Insert(list, i, id)
	}
	return list[:min(len(list), examples)]
}

// tokenPlans are the plans that tokens named since the server started. No store knows of them. It is bounded: the names
// come from issuers that are trusted, of which one may yet go wrong.
type tokenPlans struct {
	seen sync.Map // plan -> nothing
	mu   sync.Mutex
	n    int
}

const maxTokenPlans = 1000

// Record notes the plan of a good token.
func (t *tokenPlans) Record(e *check.Entry) {
	token := &e.Facts.Token
	if token.Plan == "" || token.Status != authz.TokenValid {
		return
	}
	if _, ok := t.seen.Load(token.Plan); ok {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.n < maxTokenPlans {
		t.n++
		t.seen.Store(strings.Clone(token.Plan), struct{}{})
	}
}

func (t *tokenPlans) addTo(uses map[string]*admin.PlanUse) {
	t.seen.Range(func(plan, _ any) bool {
		useOf(uses, plan.(string)).Tokens = true
		return true
	})
}

// inForce is what policies that come must not take away.
type inForce struct {
	plans   map[string][]admin.PlanLimit
	reasons []string // that the policies' own table has
	uses    map[string]*admin.PlanUse
}

// taken lists what the next policies lack of what is in force and used, nothing if they may take its place.
func (f *inForce) taken(next *check.Rules, p *policy.Policy) []policy.Fault {
	routes := routesOf(p)
	var out []policy.Fault
	report := func(what string, by []string) {
		if len(by) > 0 {
			out = append(out, policy.Fault{Code: faultRemoved, Text: what + ", and used by " + strings.Join(by, ", ")})
		}
	}
	for _, plan := range slices.Sorted(maps.Keys(f.plans)) {
		limits, there := next.Plans[plan]
		if !there {
			report(fmt.Sprintf("plan %q is gone", plan), append(usedBy(f.uses[plan]), routes.naming(plan)...))
			continue
		}
		for _, l := range f.plans[plan] {
			i := slices.IndexFunc(limits, func(m authz.Limit) bool { return m.Name == l.Name })
			switch {
			case i < 0:
				report(fmt.Sprintf("limit %q of plan %q is gone", l.Name, plan), append(usedBy(f.uses[plan]), routes.charging(l.Name, next.Plans)...))
			case limits[i].Unit != l.Unit:
				report(fmt.Sprintf("limit %q of plan %q counts %s and no more %s", l.Name, plan, limits[i].Unit, l.Unit), usedBy(f.uses[plan]))
			}
		}
	}
	own := ownReasons(p)
	for _, code := range f.reasons {
		if place, ok := p.Mentions(code); ok && !slices.Contains(own, code) {
			report(fmt.Sprintf("reason %q is gone", code), []string{"the rule at " + place})
		}
	}
	return out
}

// lacks reports whether a plan or a limit is gone or counts something else, whoever uses it.
func (f *inForce) lacks(next *check.Rules) bool {
	for plan, limits := range f.plans {
		for _, l := range limits {
			if !slices.ContainsFunc(next.Plans[plan], func(m authz.Limit) bool { return m.Name == l.Name && m.Unit == l.Unit }) {
				return true
			}
		}
		if _, there := next.Plans[plan]; !there {
			return true
		}
	}
	return false
}

// lacking is what policies lack of what a server has in force and in use, and of the plans that are used.
func lacking(used *admin.Plans, next *check.Rules, p *policy.Policy) []policy.Fault {
	if used == nil {
		return nil
	}
	f := inForce{plans: make(map[string][]admin.PlanLimit), uses: make(map[string]*admin.PlanUse), reasons: used.Reasons}
	elsewhere := make(map[string]*admin.PlanUse) // used, and not in force, either
	for i := range used.Plans {
		u := &used.Plans[i]
		f.uses[u.Name] = u
		if u.Defined {
			f.plans[u.Name] = u.Limits
		} else {
			elsewhere[u.Name] = u
		}
	}
	out := f.taken(next, p)
	for _, text := range missing(elsewhere, next.Plans) {
		out = append(out, policy.Fault{Code: faultRemoved, Text: text})
	}
	return out
}

// CheckPlans says what policies lack of what is used, one a line. The error is a *policy.LoadError where they cannot be
// loaded at all.
func CheckPlans(ctx context.Context, cfg config.Policy, used *admin.Plans) ([]string, error) {
	p, err := policy.Load(ctx, source(cfg), optionsOf(cfg))
	if err != nil {
		return nil, err
	}
	r, err := rulesOf(p, nil)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, f := range lacking(used, r, p) {
		out = append(out, f.Text)
	}
	return out, nil
}

// PlansOf says who is on which plan by the data file in a directory that no server runs on. The error is ErrRunning while
// one does.
func PlansOf(ctx context.Context, dataDir string) (*admin.Plans, error) {
	file, err := bolt.Inspect(filepath.Join(dataDir, databaseFile))
	switch {
	case errors.Is(err, bolt.ErrInUse):
		return nil, ErrRunning
	case err != nil:
		return nil, err
	}
	defer func() { _ = file.Close() }()
	uses, err := planUses(ctx, file, time.Now(), nil)
	if err != nil {
		return nil, err
	}
	out := &admin.Plans{}
	for _, name := range slices.Sorted(maps.Keys(uses)) {
		out.Plans = append(out.Plans, *uses[name])
	}
	return out, nil
}

// missing says of each plan that is used and does not exist who is on it. Where policies have no plans at all, a plan is
// only a name.
func missing(uses map[string]*admin.PlanUse, plans map[string][]authz.Limit) []string {
	var out []string
	for _, name := range slices.Sorted(maps.Keys(uses)) {
		if _, there := plans[name]; !there && len(plans) > 0 {
			out = append(out, fmt.Sprintf("plan %q does not exist, and is used by %s", name, strings.Join(usedBy(uses[name]), ", ")))
		}
	}
	return out
}

// usedBy says who is on a plan and how many, nothing for an unused one.
func usedBy(u *admin.PlanUse) []string {
	if u == nil {
		return nil
	}
	var out []string
	for _, x := range []struct {
		n         int
		one, many string
		ids       []string
	}{{u.Accounts, "account", "accounts", u.AccountIDs}, {u.Keys, "key", "keys", u.KeyIDs}} {
		if x.n == 0 {
			continue
		}
		ids := strings.Join(x.ids, ", ")
		if x.n > len(x.ids) {
			ids += ", …"
		}
		out = append(out, fmt.Sprintf("%d %s (%s)", x.n, pickWord(x.n, x.one, x.many), ids))
	}
	if u.Tokens {
		out = append(out, "tokens that name it")
	}
	return out
}

func pickWord(n int, one, many string) string {
	if n == 1 {
		return one
	}
	return many
}

// routes are the entries of data.tollkeeper.routes, as far as they name plans and limits.
type routes []struct {
	name          string
	plans, limits []string
}

func routesOf(p *policy.Policy) routes {
	data, _ := p.Data("tollkeeper", "routes")
	list, _ := data.([]any)
	out := make(routes, len(list))
	for i, v := range list {
		entry, _ := v.(map[string]any)
		match, _ := entry["match"].(map[string]any)
		if out[i].name, _ = entry["name"].(string); out[i].name == "" {
			out[i].name, _ = match["path"].(string)
		}
		plans, _ := entry["plans"].([]any)
		for _, plan := range plans {
			if name, ok := plan.(string); ok {
				out[i].plans = append(out[i].plans, name)
			}
		}
		charge, _ := entry["charge"].(map[string]any)
		out[i].limits = slices.Sorted(maps.Keys(charge))
	}
	return out
}

// routeWarnings say which plans and limits routes name that do not exist. Such a limit is left out of the charge, and such a
// plan lets no caller through.
func routeWarnings(p *policy.Policy, plans map[string][]authz.Limit) []policy.Fault {
	var out []policy.Fault
	warn := func(format string, args ...any) {
		out = append(out, policy.Fault{Code: "unknown_in_route", Text: fmt.Sprintf(format, args...)})
	}
	rs := routesOf(p)
	for _, r := range rs {
		for _, plan := range r.plans {
			if _, there := plans[plan]; !there {
				warn("route %q is for plan %q, which does not exist", r.name, plan)
			}
		}
		for _, limit := range r.limits {
			if len(rs.charging(limit, plans)) > 0 {
				warn("route %q charges limit %q, which no plan has", r.name, limit)
			}
		}
	}
	return out
}

// naming are the routes for which one has to be on that plan.
func (r routes) naming(plan string) (out []string) {
	for _, x := range r {
		if slices.Contains(x.plans, plan) {
			out = append(out, fmt.Sprintf("route %q", x.name))
		}
	}
	return out
}

// charging are the routes that charge a limit, where no plan has it any more: a limit that some plans lack is no fault.
func (r routes) charging(limit string, plans map[string][]authz.Limit) (out []string) {
	for _, limits := range plans {
		if slices.ContainsFunc(limits, func(l authz.Limit) bool { return l.Name == limit }) {
			return nil
		}
	}
	for _, x := range r {
		if slices.Contains(x.limits, limit) {
			out = append(out, fmt.Sprintf("route %q", x.name))
		}
	}
	return out
}

// ownReasons are the codes in the policies' own table.
func ownReasons(p *policy.Policy) []string {
	data, _ := p.Data("tollkeeper", "reasons")
	table, _ := data.(map[string]any)
	return slices.Sorted(maps.Keys(table))
}

// limitsOf shows the limits of plans as the API does.
func limitsOf(plans map[string][]authz.Limit) map[string][]admin.PlanLimit {
	out := make(map[string][]admin.PlanLimit, len(plans))
	for name, limits := range plans {
		out[name] = make([]admin.PlanLimit, len(limits))
		for i, l := range limits {
			out[name][i] = admin.PlanLimit{Name: l.Name, Units: l.Units, Unit: l.Unit, Window: string(l.Window), Per: string(l.Per)}
		}
	}
	return out
}
