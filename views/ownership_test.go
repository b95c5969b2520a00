package views

import (
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
)

func TestInstanceIDs(t *testing.T) {
	for _, address := range []string{"http://127.0.0.1:8080", "https://[::1]:1", "http://a_b-c.example"} {
		id := instanceID(address)
		if strings.Trim(id, "abcdefghijklmnopqrstuvwxyzABCDEF0123456789._-") != "" || instanceURL(id) != address {
			t.Errorf("%s is %s, which is %s", address, id, instanceURL(id))
		}
	}
	for _, id := range []string{"", "a_zz", "a_2", "a_61"} {
		if got := instanceURL(id); got != "" {
			t.Errorf("%s is %s", id, got)
		}
	}
	for _, address := range []string{"", "host:1", "http://host/x", "http://u:p@host", "ftp://host"} {
		streams := newFixture(t).conf.Streams
		s := &Server{conf: Config{Share: &Share{URL: address}, Streams: streams}, running: t.Context()}
		if s.divide() == nil {
			t.Errorf("%q is accepted", address)
		}
	}
}

// A member that was removed from the group goes on with its partitions until it is assigned others.
func TestAnInstanceOutsideTheGroupGoesOn(t *testing.T) {
	s := share(t, [][]int32{{0, 1}, {2, 3}})
	f := s.instances[0]
	term := f.held.term(0)
	f.members.outside = true
	if got := f.held.partitions(); !slices.Equal(got, []int32{0, 1}) {
		t.Errorf("outside: %v", got)
	}
	f.members.assigned([]int32{0, 3})
	if got := f.held.partitions(); !slices.Equal(got, []int32{0, 3}) || f.held.term(0) != term {
		t.Errorf("inside again: %v", got)
	}
	f.Stop()
	f.members.revoked([]int32{0, 3})
	if got := f.held.partitions(); len(got) != 2 {
		t.Errorf("while it stops: %v", got)
	}
}

func TestOwnersOfAGroup(t *testing.T) {
	if got := ownersOf(kadm.DescribedGroup{}, "t", 2); !slices.Equal(got, []string{"", ""}) {
		t.Error(got)
	}
}
