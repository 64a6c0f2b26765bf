package bundle

import (
	"context"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/storage"
	"github.com/open-policy-agent/opa/v1/util"
)

// baseData is the data of one revision, for OPA's evaluator. It never changes, so it needs no locks and no real transactions:
// checks and reloads never wait for each other.
type baseData struct {
	storage.TriggersNotSupported
	storage.PolicyNotSupported
	storage.WritesNotSupported

	root     ast.Value
	notFound error
}

var _ storage.Store = (*baseData)(nil)

func newBaseData(root map[string]any) (*baseData, error) {
	v, err := ast.InterfaceToValue(root)
	if err != nil {
		return nil, err
	}
	return &baseData{root: v, notFound: &storage.Error{Code: storage.NotFoundErr, Message: "there is no such data"}}, nil
}

// Read returns the ast.Value at a path.
func (d *baseData) Read(_ context.Context, _ storage.Transaction, path storage.Path) (any, error) {
	v := d.root
	for _, name := range path {
		switch x := v.(type) {
		case ast.Object:
			t := x.Get(ast.StringTerm(name))
			if t == nil {
				return nil, d.notFound
			}
			v = t.Value
		case *ast.Array:
			i, ok := util.Atoi(name) // as OPA's own store, also for 1.0
			if !ok || i < 0 || i >= x.Len() {
				return nil, d.notFound
			}
			v = x.Elem(i).Value
		default:
			return nil, d.notFound
		}
	}
	return v, nil
}

// NewTransaction always returns the same transaction.
func (d *baseData) NewTransaction(context.Context, ...storage.TransactionParams) (storage.Transaction, error) {
	return snapshot{}, nil
}

// Commit does nothing.
func (d *baseData) Commit(context.Context, storage.Transaction) error { return nil }

// Abort does nothing.
func (d *baseData) Abort(context.Context, storage.Transaction) {}

// Truncate fails like every write.
func (d *baseData) Truncate(ctx context.Context, t storage.Transaction, _ storage.TransactionParams, _ storage.Iterator) error {
	return d.Write(ctx, t, storage.RemoveOp, nil, nil)
}

// snapshot is the only transaction of a store that never changes.
type snapshot struct{}

// ID is always 1.
func (snapshot) ID() uint64 { return 1 }
