import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.HashMap;
import java.util.Map;
import java.util.Optional;
import java.util.Properties;
import java.util.Set;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.producer.ProducerConfig;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.utils.Utils;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler.StreamThreadExceptionResponse;
import org.apache.kafka.streams.processor.StreamPartitioner;
import org.apache.kafka.streams.processor.api.Processor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.processor.api.RecordMetadata;
import org.apache.kafka.streams.state.KeyValueStore;
import org.apache.kafka.streams.state.RocksDBConfigSetter;
import org.apache.kafka.streams.state.Stores;
import org.rocksdb.BlockBasedTableConfig;
import org.rocksdb.BloomFilter;
import org.rocksdb.Cache;
import org.rocksdb.CompressionType;
import org.rocksdb.LRUCache;
import org.rocksdb.Options;
import org.rocksdb.RocksDB;

/**
 * A peer of the benchmark: Kafka Streams, tuned. Streaming JSON, binary rows, a record cache that holds all rows,
 * Bloom filters and a block cache in RocksDB, and large batches. linger and commit are in ms: 50 and 1000 are for
 * throughput.
 *
 * <pre>Files brokers=B input=T index=T notify=T group=G data=DIR guarantee=at_least_once|exactly_once_v2 threads=N
 * linger=MS commit=MS</pre>
 */
public class Files {
  static final class Fold implements Processor<String, Row.Event, String, byte[]> {
    private final Row.Bytes index = new Row.Bytes(), notice = new Row.Bytes();
    private ProcessorContext<String, byte[]> context;
    private KeyValueStore<String, Row> rows;

    @Override
    public void init(ProcessorContext<String, byte[]> context) {
      this.context = context;
      rows = context.getStateStore("files");
    }

    @Override
    public void process(Record<String, Row.Event> record) {
      Row.Event e = record.value();
      RecordMetadata at = context.recordMetadata().orElseThrow();
      String key = e.workspace + "/" + e.file;
      Row row = rows.get(key);
      if (row == null) {
        row = new Row();
      } else if (row.has(e, at.offset())) {
        return;
      }
      Row.Bytes b = notice;
      String position = at.partition() + ":" + at.offset();
      b.open();
      b.text(Row.Bytes.OP_ID, e.workspace + "/" + e.id + "/" + e.file);
      b.text(Row.Bytes.EVENT, e.event); b.text(Row.Bytes.EVENT_ID, e.id); b.text(Row.Bytes.WORKSPACE, e.workspace);
      b.text(Row.Bytes.FILE, e.file); b.number(Row.Bytes.VERSION, row.version + 1);
      b.text(Row.Bytes.POSITION, position); b.raw(Row.Bytes.LATE, Row.Bytes.FALSE);
      b.text(Row.Bytes.ACTOR, e.actor); b.text(Row.Bytes.AT, e.created);
      b.name(Row.Bytes.BEFORE);
      if (row.version == 0) {
        b.append(Row.Bytes.NULL);
      } else {
        row.json(b);
      }
      row.fold(e, at.partition(), at.offset());
      b.name(Row.Bytes.AFTER);
      row.json(b);
      b.raw(Row.Bytes.PAYLOAD, e.payload);
      b.close();
      rows.put(key, row);
      Record<String, byte[]> out = new Record<>(key, indexOf(row, key), record.timestamp());
      context.forward(out, "index");
      context.forward(out.withValue(b.take()), "notify");
    }

    private byte[] indexOf(Row row, String key) {
      boolean active = row.status.equals("active");
      Row.Bytes b = index;
      b.open();
      b.text(Row.Bytes.OP, active ? "upsert" : "delete"); b.text(Row.Bytes.ID, key);
      b.text(Row.Bytes.WORKSPACE, row.workspace); b.text(Row.Bytes.FILE, row.file);
      b.number(Row.Bytes.VERSION, row.version); b.text(Row.Bytes.POSITION, row.position);
      if (active) {
        b.name(Row.Bytes.DOCUMENT);
        row.json(b);
      }
      b.close();
      return b.take();
    }
  }

  /** The partition of the workspace's events. */
  static final class ByWorkspace implements StreamPartitioner<String, byte[]> {
    @Override
    public Optional<Set<Integer>> partitions(String topic, String key, byte[] value, int partitions) {
      byte[] workspace = key.substring(0, key.indexOf('/')).getBytes(StandardCharsets.UTF_8);
      return Optional.of(Set.of(Utils.toPositive(Utils.murmur2(workspace)) % partitions));
    }
  }

  public static class Rocks implements RocksDBConfigSetter {
    private static Cache cache;
    private static BloomFilter filter;

    private static synchronized void load() { // one cache for all partitions
      if (cache == null) {
        RocksDB.loadLibrary();
        cache = new LRUCache(256L << 20);
        filter = new BloomFilter(10);
      }
    }

    @Override
    public void setConfig(String store, Options options, Map<String, Object> configs) {
      load();
      BlockBasedTableConfig table = (BlockBasedTableConfig) options.tableFormatConfig();
      table.setBlockCache(cache).setFilterPolicy(filter).setBlockSize(8 << 10).setCacheIndexAndFilterBlocks(false);
      options.setTableFormatConfig(table);
      options.setWriteBufferSize(32L << 20).setMaxWriteBufferNumber(3);
      options.setCompressionType(CompressionType.NO_COMPRESSION).setMaxBackgroundJobs(2);
    }

    @Override public void close(String store, Options options) {}
  }

  private static Properties config(Map<String, String> args) {
    Properties p = new Properties();
    p.put(StreamsConfig.APPLICATION_ID_CONFIG, args.get("group"));
    p.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, args.get("brokers"));
    p.put(StreamsConfig.STATE_DIR_CONFIG, args.get("data"));
    p.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, args.get("guarantee"));
    p.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, args.get("threads"));
    p.put(StreamsConfig.STATESTORE_CACHE_MAX_BYTES_CONFIG, 512L << 20);
    p.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, args.get("commit"));
    p.put(StreamsConfig.BUFFERED_RECORDS_PER_PARTITION_CONFIG, 5000);
    p.put(StreamsConfig.ROCKSDB_CONFIG_SETTER_CLASS_CONFIG, Rocks.class);
    p.put(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG, "earliest");
    p.put(StreamsConfig.mainConsumerPrefix(ConsumerConfig.MAX_POLL_RECORDS_CONFIG), 5000);
    p.put(StreamsConfig.mainConsumerPrefix(ConsumerConfig.MAX_PARTITION_FETCH_BYTES_CONFIG), 4 << 20);
    p.put(StreamsConfig.producerPrefix(ProducerConfig.ACKS_CONFIG), "all");
    p.put(StreamsConfig.producerPrefix(ProducerConfig.LINGER_MS_CONFIG), args.get("linger"));
    p.put(StreamsConfig.producerPrefix(ProducerConfig.BATCH_SIZE_CONFIG), 512 << 10);
    p.put(StreamsConfig.producerPrefix(ProducerConfig.BUFFER_MEMORY_CONFIG), 128L << 20);
    return p;
  }

  public static void main(String[] arguments) throws InterruptedException {
    Map<String, String> args = new HashMap<>();
    for (String s : arguments) {
      String[] pair = s.split("=", 2);
      args.put(pair[0], pair[1]);
    }
    var rows = Stores.keyValueStoreBuilder(
        Stores.persistentKeyValueStore("files"), Serdes.String(), new Row.RowSerde());
    var text = Serdes.String().serializer();
    var bytes = Serdes.ByteArray().serializer();
    Topology topology = new Topology()
        .addSource("events", Serdes.String().deserializer(), new Row.EventDeserializer(), args.get("input"))
        .addProcessor("fold", Fold::new, "events")
        .addStateStore(rows.withLoggingEnabled(Map.of()).withCachingEnabled(), "fold")
        .addSink("index", args.get("index"), text, bytes, new ByWorkspace(), "fold")
        .addSink("notify", args.get("notify"), text, bytes, new ByWorkspace(), "fold");
    KafkaStreams streams = new KafkaStreams(topology, config(args));
    streams.setUncaughtExceptionHandler(x -> {
      x.printStackTrace();
      Runtime.getRuntime().halt(1);
      return StreamThreadExceptionResponse.SHUTDOWN_CLIENT;
    });
    Runtime.getRuntime().addShutdownHook(new Thread(() -> {
      boolean closed = streams.close(Duration.ofSeconds(30));
      Runtime.getRuntime().halt(closed ? 0 : 1); // java would exit with the number of the signal
    }));
    streams.start();
    Thread.currentThread().join();
  }
}
