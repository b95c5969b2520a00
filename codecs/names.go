package codecs

import "slices"

// A slot is where a scan keeps what the spellings of one field carried.
type slot uint8

// The spellings that must agree with each other have a slot each: these say what an event is, and about whom.
const (
	none slot = iota
	atEvent
	atEventTypeCamel
	atEventType
	atEventID
	atEventIDCamel
	atWorkspace
	atWorkspaceCamel
	atProfile
	atProfileCamel
	atProfileType
	atProfileTypeCamel
	atShare
	atShareCamel
	atOrg
	atOrgCamel
	atHashAlgorithm
	atCanonical // written by the ingress: see Event.sent_event
	atObject    // of this and those below, the first spelling that carries a value decides
	atName
	atPath
	atParent
	atMime
	atHash
	atActor
	atMember
	lastText = atMember
)

const (
	atSize = lastText + 1 + iota
	atOccurred
	atReceived
)

// optional are the fields that an event can do without, by their slots from atName on: their names in this project.
var optional = [...]string{"name", "path", "parent_id", "mime", "hash", "actor_id", "member_id", "size", "created"}

// OptionalFields returns the names that Event.unreadable may hold, sorted.
func OptionalFields() []string { return slices.Sorted(slices.Values(optional[:])) }

// canonicalName is the member by which the ingress writes down the meaning that it gave to a name of its configuration.
const canonicalName = "canonical_event"

// fields are the names that senders use, by exact case, and where their values go. Those of one slot stand in the order in
// which they are believed.
var fields = []struct {
	at    slot
	names []string
}{
	{atEvent, []string{"event"}},
	{atEventTypeCamel, []string{"eventType"}},
	{atEventType, []string{"event_type"}},
	{atEventID, []string{"event_id"}},
	{atEventIDCamel, []string{"eventId"}},
	{atWorkspace, []string{"workspace_id"}},
	{atWorkspaceCamel, []string{"workspaceId"}},
	{atProfile, []string{"profile_id"}},
	{atProfileCamel, []string{"profileId"}},
	{atProfileType, []string{"profile_type"}},
	{atProfileTypeCamel, []string{"profileType"}},
	{atShare, []string{"share_id"}},
	{atShareCamel, []string{"shareId"}},
	{atOrg, []string{"org_id"}},
	{atOrgCamel, []string{"orgId"}},
	{atHashAlgorithm, []string{"hash_algo"}},
	{atCanonical, []string{canonicalName}},
	{atObject, []string{"object_id", "objectId", "fileId", "file_id"}},
	{atName, []string{"name", "fileName", "file_name"}},
	{atPath, []string{"path", "filePath", "file_path"}},
	{atParent, []string{"parent_id", "folder_id", "parentId", "folderId", "parent"}},
	{atMime, []string{"mime", "mimeType", "mime_type", "mimetype", "content_type"}},
	{atHash, []string{"hash", "checksum", "sha256"}},
	{atActor, []string{"calling_user_id", "callingUserId", "actor_id", "actorId", "user_id", "userId"}},
	{atMember, []string{"user_id", "member_id", "userId", "memberId"}},
	{atSize, []string{"size", "fileSize", "file_size"}},
	{atOccurred, []string{"created", "timestamp", "occurred_at", "createdAt"}},
	{atReceived, []string{"received_at"}},
}

// A spelling is one name, where its value goes, and its place among the names of that slot. A user may be both the actor and
// the member, so a name may have two slots.
type spelling struct {
	name string
	at   [2]slot
	rank [2]uint8
}

// spellings is fields as a hash table, because an event's every name is looked up in it.
var spellings = func() (table [256]spelling) {
	for _, f := range fields {
		for rank, name := range f.names {
			h := hashName([]byte(name))
			for table[h].name != "" && table[h].name != name {
				h++ // a uint8: it comes round
			}
			e := &table[h]
			e.name = name
			i := 0
			if e.at[0] != none {
				i = 1
			}
			e.at[i], e.rank[i] = f.at, uint8(rank)
		}
	}
	return table
}()

// hashName tells most names of one object apart.
func hashName(name []byte) uint8 {
	n := len(name)
	if n == 0 {
		return 0
	}
	return uint8(n*31) + name[0]*7 + name[n/2]*13 + name[n-1]*3
}

// lookup returns what is known of a name, nil if it is not one that is read.
func lookup(name []byte, hash uint8) *spelling {
	if len(name) == 0 {
		return nil
	}
	for h := hash; ; h++ {
		switch e := &spellings[h]; e.name {
		case string(name):
			return e
		case "":
			return nil
		}
	}
}
