package admin

import (
	"cmp"
	"context"
	"encoding/json"
	"math"
	"strings"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/check"
)

// findPatience bounds the wait for decisions that are still queued for the log.
const findPatience = time.Second

func (s *Service) decision(ctx context.Context, id string) (Decision, error) {
	ctx, cancel := context.WithTimeout(ctx, findPatience)
	defer cancel()
	d, ok := s.Decision(ctx, id)
	if !ok {
		return Decision{}, authz.Errorf(authz.KindNotFound,
			"decision %q: this server remembers only its own latest decisions; look for the id in the decision logs", id)
	}
	return d, nil
}

// viewExplanation converts an explanation for people: first the fact, the rule and the remedy, then everything else.
func viewExplanation(e *check.Explanation) Explanation {
	out := Explanation{
		Allowed: e.Decision.Allowed(), Status: e.Decision.HTTPStatus(), Reason: string(e.Decision.DeniedFor()),
		Title: e.Info.Title, Remedy: e.Info.Remedy, Cause: e.Cause, PolicyErrors: e.PolicyErrors, Charge: e.Charge,
		Policy: e.Revision, Evaluator: e.Trace.Evaluator,
		Key: part(e.Trace.Input, "key"), Token: part(e.Trace.Input, "token"), Account: part(e.Trace.Input, "account"),
		Body: e.Decision.Body, Decision: e.Decision.ID,
	}
	var problem struct{ Detail string }
	if json.Unmarshal([]byte(e.Decision.Body), &problem) == nil {
		out.Detail = problem.Detail
	}
	if r := e.Decisive(); r != nil {
		rule := viewRule(r)
		out.Rule = &rule
		out.Fact = facts(r)
	}
	out.Path, out.Route = ViewReading(&e.Facts.Path), ViewRoute(&e.Facts.Route)
	for i := range e.Trace.Rules {
		out.Rules = append(out.Rules, viewRule(&e.Trace.Rules[i]))
	}
	out.Profile = viewProfile(e.Profile)
	for _, h := range e.Decision.Headers {
		out.Headers = append(out.Headers, Header(h))
	}
	for _, q := range e.Facts.Quota {
		out.Quota = append(out.Quota, QuotaState{Name: q.Name, State: string(q.State), Limit: q.Limit, Remaining: q.Remaining, ResetsAt: q.ResetsAt})
	}
	return out
}

// viewProfile returns nil for none.
func viewProfile(p *authz.Profile) *Profile {
	if p == nil {
		return nil
	}
	return &Profile{
		Evaluations: p.Evaluations, Once: p.Once,
		TimeNS: p.Time.Nanoseconds(), InputNS: p.Input.Nanoseconds(),
		Rules: viewCalls(p.Rules), Functions: viewCalls(p.Functions), Lines: viewCalls(p.Lines), Hints: p.Hints, Error: p.Error,
	}
}

func viewCalls(list []authz.ProfiledCalls) (out []Profiled) {
	for _, c := range list {
		out = append(out, Profiled{
			Name: c.Name, File: c.File, Line: c.Line, Calls: c.Calls, Evaluated: c.Evaluated,
			OwnNS: c.Own.Nanoseconds(), TotalNS: c.Total.Nanoseconds(), Share: math.Round(c.Share*1000) / 1000,
		})
	}
	return out
}

// questionOf reads a question. A CheckRequest alone is one, too.
func questionOf(raw []byte) Question {
	var q Question
	if json.Unmarshal(raw, &q) != nil || q.CheckRequest == nil {
		return Question{CheckRequest: raw}
	}
	return q
}

// ViewReading returns nil if nobody has read the path.
func ViewReading(f *authz.PathFact) *Reading {
	if f.State == "" {
		return nil
	}
	return &Reading{State: string(f.State), Fault: string(f.Fault), Meaning: pathFaults[f.Fault]}
}

// ViewRoute returns nil if nobody has looked for a route.
func ViewRoute(f *authz.RouteFact) *Route {
	if f.State == "" {
		return nil
	}
	out := &Route{State: string(f.State)}
	r := f.Route
	if r == nil {
		return out
	}
	out.Name, out.Template, out.Methods, out.Hosts = r.Name, r.Template, r.Methods, r.Hosts
	out.Public, out.Scopes, out.Plans, out.Environment, out.Charge = r.Public, r.Scopes, r.Plans, r.Environment, r.Charge
	if r.KeyRequired {
		out.Key = "required"
	}
	if r.TokenRequired {
		out.Token = "required"
	}
	if len(f.Params) > 0 {
		out.Params = make(map[string]string, len(f.Params))
	}
	for _, p := range f.Params {
		out.Params[p.Name] = p.Value
	}
	return out
}

func viewRule(r *authz.TracedRule) Rule {
	out := Rule{Name: r.Name, File: r.File, Line: r.Line, Text: r.Text, Held: r.Held}
	for _, f := range r.Facts {
		out.Facts = append(out.Facts, Fact(f))
	}
	return out
}

// facts lists what the rule read, such as input.key.status = "expired".
func facts(r *authz.TracedRule) string {
	var list []string
	for _, f := range r.Facts {
		list = append(list, f.Ref+" = "+cmp.Or(f.Value, "undefined"))
	}
	return strings.Join(list, ", ")
}

// part returns one member of a JSON object, nil if there is none.
func part(doc []byte, name string) json.RawMessage {
	var all map[string]json.RawMessage
	if json.Unmarshal(doc, &all) != nil {
		return nil
	}
	return all[name]
}
