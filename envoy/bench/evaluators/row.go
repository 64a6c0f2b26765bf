package evaluators

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"testing/fstest"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/policy"
	"github.com/tollkeeper-authz/tollkeeper/authz/policy/bundle"
)

// Row is a line of the table. The line shows the geometric mean of several cases.
type Row struct {
	Name  string
	Cases []Case
}

// Case is a policy and the requests that it is asked about in turn.
type Case struct {
	Name     string
	Policy   *Policy
	Requests []*authz.Request
	Facts    *authz.Facts
	Want     Want
}

// Want is the verdict that a case must have, so that it measures what its name says.
type Want int

// The verdicts of cases.
const (
	Allow Want = iota
	Deny
	Either // also none
)

// Policy is a source of rules. Rows that follow each other and share one are measured without loading it again.
type Policy struct {
	source bundle.Source
	query  string
}

// rules is a policy of one module, in the package that decides by default. If data is not nil, it is the base data.
func rules(text string, data map[string]any) *Policy {
	m := fstest.MapFS{"p.rego": {Data: []byte(header + text)}}
	if data != nil {
		raw, err := json.Marshal(data)
		if err != nil {
			panic(err) // the rows are constants
		}
		m["data.json"] = &fstest.MapFile{Data: raw}
	}
	return &Policy{source: bundle.FS(m)}
}

const header = `package envoy.authz

import input.attributes.request.http

default allow := false

`

// pair is a policy on both evaluators. The zero value has none.
type pair struct {
	of                *Policy
	topdown, compiled *policy.Policy
}

func (p *Policy) load(ctx context.Context, interpreted bool) (*policy.Policy, error) {
	return policy.Load(ctx, p.source, policy.Options{Query: p.query, Interpreted: interpreted})
}

// load loads a policy unless it is the one that was loaded last. It fails if no program can decide.
func (p *pair) load(ctx context.Context, of *Policy) (err error) {
	if p.of == of {
		return nil
	}
	p.of = nil
	if p.topdown, err = of.load(ctx, true); err != nil {
		return err
	}
	if p.compiled, err = of.load(ctx, false); err != nil {
		return err
	}
	if e := p.compiled.Evaluator(); !e.Compiled() {
		return fmt.Errorf("not compiled: %s", e.Detail)
	}
	p.of = of
	return nil
}

// agree asks both evaluators about each request. They must give the same verdict, and the one that the case wants.
func (p *pair) agree(ctx context.Context, c *Case) error {
	for _, r := range c.Requests {
		want, wantErr := p.topdown.Decide(ctx, r, c.Facts, nil)
		got, err := p.compiled.Decide(ctx, r, c.Facts, nil)
		if !reflect.DeepEqual(got, want) || fmt.Sprint(err) != fmt.Sprint(wantErr) {
			return fmt.Errorf("the program says %+v, %w, OPA's evaluator %+v, %w", got, orNone(err), want, orNone(wantErr))
		}
		switch {
		case c.Want == Either:
		case err != nil:
			return err
		case got.Allowed != (c.Want == Allow):
			return fmt.Errorf("the verdict is %+v", got)
		}
	}
	return nil
}

var errNone = errors.New("no error")

func orNone(err error) error {
	if err == nil {
		return errNone
	}
	return err
}
