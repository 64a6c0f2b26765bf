package server

import (
	"context"
	"strings"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/admin"
	"github.com/tollkeeper-authz/tollkeeper/authz/apikey"
	"github.com/tollkeeper-authz/tollkeeper/authz/check"
	"github.com/tollkeeper-authz/tollkeeper/authz/extauthz"
)

// explain decides a request that an operator describes. It adds the key that the operator names.
func (s *Server) explain(ctx context.Context, q admin.Question) (check.Explanation, error) {
	r, err := extauthz.DecodeJSON(q.CheckRequest, extauthz.Texts{Method: q.Method, Path: q.Path, Host: q.Host}, s.decodeOptions)
	if err != nil {
		return check.Explanation{}, err
	}
	text, key, err := s.keyOf(ctx, q)
	if err != nil {
		return check.Explanation{}, err
	}
	if text != "" && r.HTTP != nil && !s.keySources.Put(r, text) {
		return check.Explanation{}, authz.Errorf(authz.KindInvalid, "no request can carry a key: credentials is empty in the configuration")
	}
	how := check.Explained{Profile: q.Profile}
	if key != nil {
		how.Keys = apikey.Only{Identifier: s.identifier, Key: key}
	}
	return s.checker.Explain(ctx, r, how), nil
}

// keyOf returns the text of the key that the request carries, "" for none. If the operator gave an id, the text of the key is
// not known: the id takes its place, and the key is returned, too.
func (s *Server) keyOf(ctx context.Context, q admin.Question) (text string, _ *apikey.Key, err error) {
	switch {
	case q.Key != "" && q.Account != "":
		return "", nil, authz.Errorf(authz.KindInvalid, "a key and an account: give one of them")
	case q.Account != "":
		k, err := s.firstKey(ctx, q.Account)
		if err != nil {
			return "", nil, err
		}
		return k.ID, k, nil
	case q.Key == "":
		return "", nil, nil
	}
	// A text first: a check finds it while the store is away, and an operator wants to see what it finds. An imported key may have a
	// text that looks like an id.
	fact, _ := s.identifier.Identify(ctx, q.Key, time.Now())
	if fact.Found() || apikey.IsOurs(q.Key) {
		return q.Key, nil, nil
	}
	k, err := s.stores.keys.Key(ctx, q.Key)
	switch {
	case err == nil:
		return k.ID, k, nil
	case authz.KindOf(err) != authz.KindNotFound:
		return "", nil, err
	case strings.HasPrefix(q.Key, "key_"): // a misspelt id must not be taken for the text of a key
		return "", nil, authz.Errorf(authz.KindNotFound, "there is no key %q", q.Key)
	}
	return q.Key, nil, nil
}

// firstKey returns the first of an account's keys that works, or else the first of all.
func (s *Server) firstKey(ctx context.Context, account string) (*apikey.Key, error) {
	if _, err := s.stores.keys.Account(ctx, account); err != nil {
		return nil, err
	}
	var first *apikey.Key
	for p := (apikey.Page{Account: account, Limit: 100}); ; {
		keys, err := s.stores.keys.Keys(ctx, p)
		if err != nil {
			return nil, err
		}
		for _, k := range keys {
			if k.StatusAt(time.Now()) == authz.KeyActive && !s.isRevoked(k.ID, k.Account, k.CreatedAt) {
				return k, nil
			}
			if first == nil {
				first = k
			}
		}
		if len(keys) < p.Limit {
			break
		}
		p.After = keys[len(keys)-1].ID
	}
	if first == nil {
		return nil, authz.Errorf(authz.KindNotFound, "account %q has no key: make one with: tollkeeper key create --account %s", account, account)
	}
	return first, nil
}
