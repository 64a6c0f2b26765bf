package apikey

import "fmt"

// ImportView is the store as one import sees it, inside the transaction that will add the keys.
type ImportView interface {
	// WithDigest returns the stored key that has that digest, nil if there is none.
	WithDigest(d Digest) (*Key, error)
	// HasID reports whether there is a key with that id.
	HasID(id string) bool
	// AsStored returns a key as it will be read back, so that a number in Meta does not differ from itself.
	AsStored(k *Key) (*Key, error)
}

// PlanImport decides what an import does. It returns the indexes of the keys that have to be added; the others are there
// already, the same in every imported field. If a key has a fault, the error is an *ImportError that names every one. faults are
// those that the store has found itself, by index: it cannot store these keys.
func PlanImport(keys []Key, faults map[int]string, v ImportView) ([]int, error) {
	p := importPlan{view: v, byDigest: make(map[Digest]*Key), byID: make(map[string]bool)}
	var add []int
	var refused []ImportFault
	for i := range keys {
		k := &keys[i]
		same, fault := false, faults[i]
		if fault == "" {
			var err error
			if same, fault, err = p.judge(k); err != nil {
				return nil, err
			}
		}
		switch {
		case fault != "":
			refused = append(refused, ImportFault{Index: i, Text: fault})
		case !same:
			p.byDigest[k.Digest], p.byID[k.ID] = k, true
			add = append(add, i)
		}
	}
	if len(refused) > 0 {
		return nil, &ImportError{Faults: refused}
	}
	return add, nil
}

// importPlan is the state of one PlanImport.
type importPlan struct {
	view     ImportView
	byDigest map[Digest]*Key // the keys to add
	byID     map[string]bool
}

// judge compares a key with the one of the same digest in the store, or earlier in the import.
func (p *importPlan) judge(k *Key) (same bool, fault string, err error) {
	stored, err := p.view.WithDigest(k.Digest)
	if err != nil {
		return false, "", err
	}
	if stored != nil {
		return p.compare(stored, k, fmt.Sprintf("is there already as %q", stored.ID))
	}
	if earlier, ok := p.byDigest[k.Digest]; ok {
		if earlier, err = p.view.AsStored(earlier); err != nil {
			return false, "", err
		}
		return p.compare(earlier, k, fmt.Sprintf("comes twice, first as %q,", earlier.ID))
	}
	switch {
	case k.ID == "":
		return false, "a key needs an id", nil
	case k.Account == "":
		return false, fmt.Sprintf("key %q has no account", k.ID), nil
	case p.byID[k.ID] || p.view.HasID(k.ID):
		return false, fmt.Sprintf("there is another key %q", k.ID), nil
	}
	return false, "", nil
}

func (p *importPlan) compare(stored, k *Key, where string) (same bool, fault string, err error) {
	asStored, err := p.view.AsStored(k)
	if err != nil {
		return false, "", err
	}
	if SameImport(stored, asStored) {
		return true, "", nil
	}
	return false, fmt.Sprintf("key %q %s and says something else", k.ID, where), nil
}
