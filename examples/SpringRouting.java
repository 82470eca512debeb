// Read your own writes with Spring: what is @Transactional(readOnly = true) runs on a
// replica, behind the wait; every other transaction on the primary.
//
//   javac -cp $JARS -d . Jdbc.java SpringRouting.java
//   java -cp $JARS:. SpringRouting "$PRIMARY" "$REPLICA1" "$REPLICA2"
//
// $JARS: the driver, HikariCP and its SLF4J; Spring's core, beans, context, tx and jdbc, and
// jcl-over-slf4j.  Copy RywRouting, and of Jdbc.java Tokens, RywDataSource and Reads.
//
// COUNT, TOKEN and GUARD in the environment are explained in README.md.
// Run with OpenJDK 17, Spring 4.3.30, pgjdbc 42.5.5 and HikariCP 2.7.9.

import java.sql.Connection;
import java.sql.PreparedStatement;
import java.sql.SQLException;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.Supplier;
import javax.sql.DataSource;
import org.springframework.jdbc.core.JdbcTemplate;
import org.springframework.jdbc.datasource.DataSourceTransactionManager;
import org.springframework.jdbc.datasource.LazyConnectionDataSourceProxy;
import org.springframework.jdbc.datasource.lookup.AbstractRoutingDataSource;
import org.springframework.transaction.PlatformTransactionManager;
import org.springframework.transaction.support.TransactionSynchronizationManager;
import org.springframework.transaction.support.TransactionTemplate;

class SpringRouting {
    final RywRouting routing;
    final JdbcTemplate jdbc;
    final TransactionTemplate writing;
    final TransactionTemplate reading;

    // What beans do in an application.  The proxy is needed: Spring asks for the connection of a
    // transaction before it says whether that is read-only.  Without it all is read on the primary.
    SpringRouting(List<DataSource> nodes, Supplier<Tokens> current) {
        routing = new RywRouting(nodes, current);
        DataSource lazy = new LazyConnectionDataSourceProxy(routing);
        PlatformTransactionManager manager = new DataSourceTransactionManager(lazy);
        jdbc = new JdbcTemplate(lazy);
        writing = new TransactionTemplate(manager);  // @Transactional
        reading = new TransactionTemplate(manager);  // @Transactional(readOnly = true)
        reading.setReadOnly(true);
    }

    Integer write(String sql) {
        return writing.execute(status -> jdbc.queryForObject(sql, Integer.class));
    }

    Integer read(String sql) {
        return reading.execute(status -> jdbc.queryForObject(sql, Integer.class));
    }

    public static void main(String[] args) {
        Tokens tokens = new Tokens(Jdbc.env("TOKEN", ""));
        boolean guard = !Jdbc.env("GUARD", "on").equals("off");
        List<DataSource> nodes = new ArrayList<>();
        for (String arg : args)
            nodes.add(Jdbc.pool(arg, nodes.isEmpty()));
        // In a web application the Supplier finds the Tokens of this request.
        SpringRouting app = new SpringRouting(nodes, () -> guard ? tokens : new Tokens(""));
        int times = Integer.parseInt(Jdbc.env("COUNT", "1"));
        int stale = 0;
        int lost = 0;

        for (int turn = 0; turn < times; turn++) {
            int written = app.write(
                "UPDATE profiles SET version = version + 1 WHERE id = 1 RETURNING version");
            Integer seen = null;
            while (seen == null) {
                try {
                    seen = app.read("SELECT version FROM profiles WHERE id = 1");
                } catch (Reads.TokenLost e) {
                    lost++;
                    System.out.println("token lost: a write of yours is gone");
                }
            }
            if (seen < written)
                stale++;
        }
        Reads reads = app.routing.reads;
        System.out.printf("%d written, %d stale, %d lost, %d on the primary, %d fallbacks, token %s%n",
            times, stale, lost, reads.onPrimary, reads.fallbacks, tokens);
    }
}

// The first of the nodes is the primary.  A read-only transaction gets the connection of a node
// that has answered the wait, so whatever it reads there, with whatever is above, is right.
class RywRouting extends AbstractRoutingDataSource {
    final Reads reads;
    private final Supplier<Tokens> current;
    private final ThreadLocal<Integer> node = ThreadLocal.withInitial(() -> 0);
    private final AtomicInteger turn = new AtomicInteger();

    RywRouting(List<DataSource> nodes, Supplier<Tokens> current) {
        this.reads = new Reads(nodes);
        this.current = current;
        Map<Object, Object> targets = new HashMap<>();
        for (int i = 1; i < nodes.size(); i++)
            targets.put(i, nodes.get(i));
        targets.put(0, new RywDataSource(nodes.get(0), current));
        setTargetDataSources(targets);
        afterPropertiesSet();
    }

    protected Object determineCurrentLookupKey() {
        return node.get();
    }

    public Connection getConnection() throws SQLException {
        if (!TransactionSynchronizationManager.isCurrentTransactionReadOnly())
            return super.getConnection();
        Tokens tokens = current.get();
        return reads.tried(tokens, turn.getAndIncrement(), (which, wait) -> behind(which, tokens, wait));
    }

    // The transaction begins after this, so its isolation level may be any.
    private Connection behind(int which, Tokens tokens, int wait) throws SQLException {
        Connection c = on(which);
        try (PreparedStatement s = c.prepareStatement("SELECT ryw_require(?, ?)")) {
            s.setString(1, tokens.toString());
            s.setInt(2, wait);
            s.execute();
            return c;
        } catch (SQLException | RuntimeException e) {
            c.close();
            throw e;
        }
    }

    private Connection on(int which) throws SQLException {
        node.set(which);
        try {
            return super.getConnection();
        } finally {
            node.remove();
        }
    }
}
