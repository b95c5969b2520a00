import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonToken;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import org.apache.kafka.common.serialization.Deserializer;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serializer;

/** A row of the table: a file, and the ids and the offset of the events that it has. */
final class Row {
  static final int WINDOW = 256; // ids, as many as tidemark's

  String workspace, file, name, path, mime, hash, status, position, actor, lastEvent, lastEventId;
  String created, updated, deleted = "";
  long size, version, offset;
  boolean incomplete;
  final ArrayList<String> ids = new ArrayList<>();

  /** An event as received. */
  static final class Event {
    String event, id, workspace, file, name, path, mime, hash, actor, created;
    long size;
    byte[] payload;
  }

  /** Reads events as a stream of tokens. */
  static final class EventDeserializer implements Deserializer<Event> {
    private final JsonFactory json = new JsonFactory();

    @Override
    public Event deserialize(String topic, byte[] data) {
      Event e = new Event();
      e.payload = data;
      try (JsonParser p = json.createParser(data)) {
        if (p.nextToken() != JsonToken.START_OBJECT) {
          throw new IOException("no object");
        }
        for (String field; (field = p.nextFieldName()) != null; ) {
          switch (field) {
            case "event": e.event = p.nextTextValue(); break;
            case "event_id": e.id = p.nextTextValue(); break;
            case "workspace_id": e.workspace = p.nextTextValue(); break;
            case "object_id": e.file = p.nextTextValue(); break;
            case "name": e.name = p.nextTextValue(); break;
            case "path": e.path = p.nextTextValue(); break;
            case "size": e.size = p.nextLongValue(0); break;
            case "mime": e.mime = p.nextTextValue(); break;
            case "hash": e.hash = p.nextTextValue(); break;
            case "actor_id": e.actor = p.nextTextValue(); break;
            case "created": e.created = p.nextTextValue(); break;
            default: p.nextToken(); p.skipChildren();
          }
        }
        return e;
      } catch (IOException x) {
        throw new UncheckedIOException(x);
      }
    }
  }

  boolean has(Event e, long at) {
    return version > 0 && at <= offset || ids.lastIndexOf(e.id) >= 0;
  }

  void fold(Event e, int partition, long at) {
    workspace = e.workspace; file = e.file; name = e.name; path = e.path; size = e.size; mime = e.mime;
    hash = e.hash; actor = e.actor; updated = e.created; lastEvent = e.event; lastEventId = e.id;
    if (e.event.endsWith("_deleted")) {
      status = "trashed"; deleted = e.created;
    } else if (e.event.endsWith("_added")) {
      if (created == null) {
        created = e.created;
      }
      status = "active"; deleted = ""; incomplete = false;
    } else if (version == 0) {
      status = "active"; incomplete = true;
    }
    version++;
    offset = at;
    position = partition + ":" + at;
    if (ids.size() >= WINDOW) {
      ids.remove(0);
    }
    ids.add(e.id);
  }

  /** The file as JSON; the members in the order of tidemark's. */
  void json(Bytes b) {
    b.open();
    b.text(Bytes.WORKSPACE, workspace); b.text(Bytes.FILE, file); b.text(Bytes.NAME, name);
    b.text(Bytes.PATH, path); b.number(Bytes.SIZE, size); b.text(Bytes.MIME, mime); b.text(Bytes.HASH, hash);
    b.text(Bytes.STATUS, status); b.raw(Bytes.INCOMPLETE, incomplete ? Bytes.TRUE : Bytes.FALSE);
    b.number(Bytes.VERSION, version); b.text(Bytes.POSITION, position); b.text(Bytes.ACTOR, actor);
    b.text(Bytes.LAST_EVENT, lastEvent); b.text(Bytes.LAST_EVENT_ID, lastEventId);
    b.text(Bytes.CREATED, created); b.text(Bytes.UPDATED, updated);
    if (deleted.isEmpty()) {
      b.raw(Bytes.DELETED, Bytes.NULL);
    } else {
      b.text(Bytes.DELETED, deleted);
    }
    b.close();
  }

  /** The binary form: strings with their length before them, and varints. */
  static final class RowSerde implements Serde<Row>, Serializer<Row>, Deserializer<Row> {
    private static final ThreadLocal<Bytes> BUFFER = ThreadLocal.withInitial(Bytes::new);

    @Override public Serializer<Row> serializer() { return this; }
    @Override public Deserializer<Row> deserializer() { return this; }
    @Override public void configure(java.util.Map<String, ?> configs, boolean isKey) {}
    @Override public void close() {}

    @Override
    public byte[] serialize(String topic, Row r) {
      if (r == null) {
        return null;
      }
      Bytes b = BUFFER.get();
      for (String s : new String[] {r.workspace, r.file, r.name, r.path, r.mime, r.hash, r.status, r.position,
          r.actor, r.lastEvent, r.lastEventId, r.created, r.updated, r.deleted}) {
        b.string(s);
      }
      b.varint(r.size); b.varint(r.version); b.varint(r.offset); b.varint(r.incomplete ? 1 : 0);
      b.varint(r.ids.size());
      for (String id : r.ids) {
        b.string(id);
      }
      return b.take();
    }

    @Override
    public Row deserialize(String topic, byte[] data) {
      if (data == null) {
        return null;
      }
      Reader in = new Reader(data);
      Row r = new Row();
      r.workspace = in.string(); r.file = in.string(); r.name = in.string(); r.path = in.string();
      r.mime = in.string(); r.hash = in.string(); r.status = in.string(); r.position = in.string();
      r.actor = in.string(); r.lastEvent = in.string(); r.lastEventId = in.string();
      r.created = in.string(); r.updated = in.string(); r.deleted = in.string();
      r.size = in.varint(); r.version = in.varint(); r.offset = in.varint(); r.incomplete = in.varint() == 1;
      for (long n = in.varint(); n > 0; n--) {
        r.ids.add(in.string());
      }
      return r;
    }
  }

  private static final class Reader {
    private final byte[] data;
    private int at;

    Reader(byte[] data) { this.data = data; }

    long varint() {
      long v = 0;
      for (int shift = 0; ; shift += 7) {
        byte c = data[at++];
        v |= (long) (c & 0x7f) << shift;
        if (c >= 0) {
          return v;
        }
      }
    }

    String string() {
      int n = (int) varint();
      String s = new String(data, at, n, StandardCharsets.UTF_8);
      at += n;
      return s;
    }
  }

  /** A buffer for JSON and for the binary form. */
  static final class Bytes {
    static final byte[] TRUE = "true".getBytes(), FALSE = "false".getBytes(), NULL = "null".getBytes();
    static final byte[] OP = key("op"), ID = key("id"), OP_ID = key("op_id"), EVENT = key("event"),
        EVENT_ID = key("event_id"), WORKSPACE = key("workspace_id"), FILE = key("file_id"), NAME = key("name"),
        PATH = key("path"), SIZE = key("size"), MIME = key("mime"), HASH = key("hash"), STATUS = key("status"),
        INCOMPLETE = key("incomplete"), VERSION = key("version"), POSITION = key("position"), LATE = key("late"),
        ACTOR = key("actor_id"), AT = key("at"), LAST_EVENT = key("last_event"), CREATED = key("created_at"),
        LAST_EVENT_ID = key("last_event_id"), UPDATED = key("updated_at"), DELETED = key("deleted_at"),
        BEFORE = key("before"), AFTER = key("after"), PAYLOAD = key("payload"), DOCUMENT = key("file");

    private byte[] data = new byte[4096];
    private int n;
    private boolean comma;

    private static byte[] key(String name) { return ("\"" + name + "\":").getBytes(); }

    private void room(int more) {
      if (n + more > data.length) {
        data = Arrays.copyOf(data, Math.max(data.length * 2, n + more));
      }
    }

    void append(byte[] x) { room(x.length); System.arraycopy(x, 0, data, n, x.length); n += x.length; }
    void append(int c) { room(1); data[n++] = (byte) c; }
    byte[] take() { byte[] all = Arrays.copyOf(data, n); n = 0; return all; }

    void varint(long v) {
      for (room(10); (v & ~0x7FL) != 0; v >>>= 7) {
        data[n++] = (byte) (v | 0x80);
      }
      data[n++] = (byte) v;
    }

    void string(String s) {
      byte[] x = s == null ? new byte[0] : s.getBytes(StandardCharsets.UTF_8);
      varint(x.length);
      append(x);
    }

    void open() { append('{'); comma = false; }
    void close() { append('}'); comma = true; }
    void name(byte[] key) { if (comma) { append(','); } comma = true; append(key); }
    void raw(byte[] key, byte[] value) { name(key); append(value); }
    void number(byte[] key, long v) { raw(key, Long.toString(v).getBytes(StandardCharsets.ISO_8859_1)); }

    void text(byte[] key, String s) {
      if (s == null || s.isEmpty()) {
        return;
      }
      name(key);
      byte[] x = s.getBytes(StandardCharsets.UTF_8);
      room(6 * x.length + 2);
      data[n++] = '"';
      for (byte c : x) {
        if (c == '"' || c == '\\') {
          data[n++] = '\\';
          data[n++] = c;
        } else if (c >= 0 && c < ' ') {
          for (char hex : String.format("\\u%04x", (int) c).toCharArray()) {
            data[n++] = (byte) hex;
          }
        } else {
          data[n++] = c;
        }
      }
      data[n++] = '"';
    }
  }
}
