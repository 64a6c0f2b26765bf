package apikeytest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"pgregory.net/rapid"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/apikey"
	"github.com/tollkeeper-authz/tollkeeper/authz/store/memory"
	"github.com/tollkeeper-authz/tollkeeper/authz/store/storetest"
)

// random sends the same verbs to the store and to the one in memory and compares every answer.
func random(f *fixture) {
	oracle := memory.NewKeys()
	round := 0
	rapid.Check(f.T, func(t *rapid.T) {
		round++ // every round has its own ids
		m := &machine{ctx: f.Ctx(), stores: [2]apikey.Store{f.store, oracle}, round: round}
		t.Repeat(map[string]func(*rapid.T){
			"create account": m.createAccount, "amend account": m.amendAccount, "create key": m.createKey,
			"amend key": m.amendKey, "rotate": m.rotate, "import": m.imports, "list": m.list, "read": m.read,
		})
		m.all(t)
	})
}

// machine is one round of random verbs on a few ids.
type machine struct {
	ctx    context.Context
	stores [2]apikey.Store // the one under test, and the oracle
	round  int
}

func (m *machine) id(t *rapid.T, what string) string {
	return fmt.Sprintf("%s_%06d_%d", what, m.round, rapid.IntRange(0, 3).Draw(t, what))
}

func (m *machine) key(t *rapid.T) apikey.Key {
	k := key(m.id(t, "key"), m.id(t, "account"), 0)
	k.Digest = m.digest(t)
	k.Name = rapid.SampledFrom([]string{"one", "two"}).Draw(t, "name")
	return k
}

func (m *machine) digest(t *rapid.T) apikey.Digest {
	return digest(m.round*100 + rapid.IntRange(0, 5).Draw(t, "digest"))
}

// both applies a verb to both stores and compares the answers.
func (m *machine) both(t *rapid.T, verb func(apikey.Store) (any, error)) {
	got, err := verb(m.stores[0])
	want, wantErr := verb(m.stores[1])
	if (err == nil) != (wantErr == nil) || err != nil && authz.KindOf(err) != authz.KindOf(wantErr) {
		t.Fatalf("error %v, want %v", err, wantErr)
	}
	if at, wantAt := faultsOf(err), faultsOf(wantErr); at != wantAt {
		t.Fatalf("faults at %s, want %s", at, wantAt)
	}
	if err == nil && storetest.Text(got) != storetest.Text(want) {
		t.Fatalf("answer\n%s, want\n%s", storetest.Text(got), storetest.Text(want))
	}
}

func faultsOf(err error) string {
	var refused *apikey.ImportError
	if !errors.As(err, &refused) {
		return ""
	}
	var at []int
	for _, f := range refused.Faults {
		at = append(at, f.Index)
	}
	return fmt.Sprint(at)
}

func (m *machine) createAccount(t *rapid.T) {
	a := account(m.id(t, "account"))
	m.both(t, func(s apikey.Store) (any, error) { return s.CreateAccount(m.ctx, a) })
}

func (m *machine) amendAccount(t *rapid.T) {
	id, c := m.id(t, "account"), apikey.AccountChange{At: Now(), IfVersion: rapid.Uint64Range(0, 2).Draw(t, "version"), Name: new("x")}
	m.both(t, func(s apikey.Store) (any, error) { return s.AmendAccount(m.ctx, id, c) })
}

func (m *machine) createKey(t *rapid.T) {
	k := m.key(t)
	m.both(t, func(s apikey.Store) (any, error) { return s.CreateKey(m.ctx, k) })
}

func (m *machine) amendKey(t *rapid.T) {
	id := m.id(t, "key")
	c := apikey.KeyChange{
		At: Now(), IfVersion: rapid.Uint64Range(0, 2).Draw(t, "version"), Disabled: new(rapid.Bool().Draw(t, "disabled")),
		Scopes: new([]string{"a"}),
	}
	m.both(t, func(s apikey.Store) (any, error) { return s.AmendKey(m.ctx, id, c) })
}

func (m *machine) rotate(t *rapid.T) {
	id, next := m.id(t, "key"), m.key(t)
	if old, err := m.stores[1].Key(m.ctx, id); err == nil {
		next.Account = old.Account
	}
	m.both(t, func(s apikey.Store) (any, error) {
		old, made, err := s.RotateKey(m.ctx, id, next, Now().Add(time.Hour))
		return [2]*apikey.Key{old, made}, err
	})
}

func (m *machine) imports(t *rapid.T) {
	var keys []apikey.Key
	for range rapid.IntRange(0, 4).Draw(t, "keys") {
		keys = append(keys, m.key(t))
	}
	m.both(t, func(s apikey.Store) (any, error) { return s.Import(m.ctx, keys) })
}

func (m *machine) list(t *rapid.T) {
	p := apikey.Page{Limit: rapid.IntRange(0, 5).Draw(t, "limit"), After: m.id(t, "key")}
	if rapid.Bool().Draw(t, "narrow") {
		p.Account = m.id(t, "account")
	}
	m.both(t, func(s apikey.Store) (any, error) { return keysOf(s.Keys(m.ctx, p)) })
	m.both(t, func(s apikey.Store) (any, error) { return keysOf(s.Accounts(m.ctx, p)) })
}

// keysOf makes a nil list an empty one.
func keysOf[T any](list []*T, err error) ([]*T, error) { return append([]*T{}, list...), err }

func (m *machine) read(t *rapid.T) {
	id, d, account := m.id(t, "key"), m.digest(t), m.id(t, "account")
	m.both(t, func(s apikey.Store) (any, error) { return s.Key(m.ctx, id) })
	m.both(t, func(s apikey.Store) (any, error) { return s.Find(m.ctx, d) })
	m.both(t, func(s apikey.Store) (any, error) { return s.Account(m.ctx, account) })
}

// all compares all records of this round.
func (m *machine) all(t *rapid.T) {
	keys := apikey.Page{After: fmt.Sprintf("key_%06d_", m.round)}
	accounts := apikey.Page{After: fmt.Sprintf("account_%06d_", m.round)}
	m.both(t, func(s apikey.Store) (any, error) { return keysOf(s.Keys(m.ctx, keys)) })
	m.both(t, func(s apikey.Store) (any, error) { return keysOf(s.Accounts(m.ctx, accounts)) })
	for i := range 6 {
		m.both(t, func(s apikey.Store) (any, error) { return s.Find(m.ctx, digest(m.round*100+i)) })
	}
}
